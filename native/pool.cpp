// One job at a time. `state` says how many helpers may still join it and how many are inside; helpers join by taking
// one from the first and adding one to the second in a single step, so the caller, once it has set the first to zero,
// waits for those inside only: a helper that wakes up late costs nothing.
#include "pool.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>

namespace codec {
namespace {

using Run = void (*)(void*, uint32_t, uint32_t);

constexpr uint32_t kInside = 1, kOpen = 1 << 16;  // units of the two counts in `state`
constexpr uint32_t open_of(uint32_t state) { return state / kOpen; }
constexpr uint32_t inside_of(uint32_t state) { return state % kOpen; }

// Pauses before a thread sleeps: about 20 us, longer than the gap between the calls of one layer after another and far
// shorter than a time slice. A pause is about 40 cycles on Zen 4 and 140 on Intel since Skylake.
constexpr uint32_t kSpins = 1500;
// musl would give 128 KB.
constexpr size_t kStack = size_t{4} << 20;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct Pool {
  const pid_t pid = getpid();
  std::atomic<bool> busy{false};  // held by the caller whose job this is; guards the next five
  uint32_t helpers = 0;           // threads started
  uint32_t invited = 0;
  uint32_t tasks = 0;
  Run run = nullptr;
  void* context = nullptr;
  alignas(64) std::atomic<uint64_t> next{0};  // 64 bits: every worker adds one more than there are tasks
  alignas(64) std::atomic<uint32_t> state{0};
  std::atomic<uint32_t> sleepers{0};
  std::atomic<bool> caller_sleeps{false};
  std::mutex mutex;
  std::condition_variable wake, done;
};

// Never freed: helpers sleep in it until the process ends, and no destructor may wait for them at exit.
std::atomic<Pool*> the_pool{nullptr};
thread_local bool in_task = false;

std::atomic<Region> lent{nullptr};
pid_t lender = 0;  // the process that has lent them
thread_local uint32_t borrowed = 0;

void work(Pool& pool, uint32_t worker) {
  for (uint64_t task; (task = pool.next.fetch_add(1, std::memory_order_relaxed)) < pool.tasks;)
    pool.run(pool.context, uint32_t(task), worker);
}

// True if this thread has joined; only then may it read the job.
bool join(Pool& pool, uint32_t& worker) {
  uint32_t state = pool.state.load();
  while (open_of(state) != 0) {
    if (pool.state.compare_exchange_weak(state, state - kOpen + kInside)) {
      worker = pool.invited + 1 - open_of(state);
      return true;
    }
  }
  return false;
}

void leave(Pool& pool) {
  if (pool.state.fetch_sub(kInside) == kInside && pool.caller_sleeps.load()) {
    std::lock_guard<std::mutex> lock(pool.mutex);
    pool.done.notify_one();
  }
}

void* help(void* at) {
  Pool& pool = *static_cast<Pool*>(at);
  in_task = true;
  for (uint32_t spins = 0;;) {
    uint32_t worker;
    if (join(pool, worker)) {
      work(pool, worker);
      leave(pool);
      spins = 0;
    } else if (++spins < kSpins) {
      pause();
    } else {
      // The caller opens the job before it looks for sleepers, so one of the two sees the other.
      std::unique_lock<std::mutex> lock(pool.mutex);
      pool.sleepers.fetch_add(1);
      pool.wake.wait(lock, [&] { return open_of(pool.state.load()) != 0; });
      pool.sleepers.fetch_sub(1);
      spins = 0;
    }
  }
}

// Signals stay with the threads that Python knows.
bool start_helper(Pool& pool) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kStack);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, help, &pool) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

// This process's pool. A forked child has its parent's memory but not its threads, and perhaps a locked mutex: it
// leaves that pool alone and makes its own.
Pool* get_pool() {
  Pool* pool = the_pool.load();
  while (pool == nullptr || pool->pid != getpid()) {
    Pool* made = new (std::nothrow) Pool;
    if (made == nullptr) return nullptr;
    if (the_pool.compare_exchange_strong(pool, made)) return made;
    delete made;
  }
  return pool;
}

void run_shared(Pool& pool, uint32_t helpers) {
  while (pool.helpers < helpers && start_helper(pool)) ++pool.helpers;
  pool.invited = helpers < pool.helpers ? helpers : pool.helpers;
  pool.next.store(0, std::memory_order_relaxed);
  pool.state.store(pool.invited * kOpen);
  if (const uint32_t sleepers = pool.sleepers.load()) {
    { std::lock_guard<std::mutex> lock(pool.mutex); }
    for (uint32_t i = 0; i < pool.invited && i < sleepers; ++i) pool.wake.notify_one();
  }

  in_task = true;
  work(pool, 0);
  in_task = false;

  uint32_t state = pool.state.fetch_and(kOpen - 1);
  for (uint32_t spins = 0; inside_of(state) != 0 && spins < kSpins; ++spins) {
    pause();
    state = pool.state.load();
  }
  if (inside_of(state) != 0) {
    std::unique_lock<std::mutex> lock(pool.mutex);
    pool.caller_sleeps.store(true);
    pool.done.wait(lock, [&] { return inside_of(pool.state.load()) == 0; });
    pool.caller_sleeps.store(false);
  }
}

// A job on lent threads.
struct Lent {
  uint32_t tasks, threads;
  Run run;
  void* context;
  std::atomic<uint32_t> workers{0};
  alignas(64) std::atomic<uint64_t> next{0};
};

void run_lent(Region region, uint32_t tasks, uint32_t threads, Run run, void* context) {
  Lent job{tasks, threads, run, context};
  const auto work_lent = [](void* at) {
    Lent& mine = *static_cast<Lent*>(at);
    const uint32_t worker = mine.workers.fetch_add(1, std::memory_order_relaxed);
    if (worker >= mine.threads) return;
    in_task = true;
    for (uint64_t task; (task = mine.next.fetch_add(1, std::memory_order_relaxed)) < mine.tasks;)
      mine.run(mine.context, uint32_t(task), worker);
    in_task = false;
  };
  region(work_lent, &job, borrowed, 0);
}

}  // namespace

void lend_threads(Region region) {
  lender = getpid();
  lent.store(region);
}

void borrow_threads(uint32_t team) { borrowed = team; }

void parallel(uint32_t tasks, uint32_t threads, Run run, void* context) {
  if (threads > kMaxThreads) threads = kMaxThreads;
  if (threads > tasks) threads = tasks;
  if (threads > 1 && borrowed > 1 && !in_task) {
    const Region region = lent.load();
    if (region && lender == getpid()) return run_lent(region, tasks, threads, run, context);
  }
  Pool* pool = threads > 1 && !in_task ? get_pool() : nullptr;
  if (pool == nullptr || pool->busy.exchange(true)) {
    for (uint32_t task = 0; task < tasks; ++task) run(context, task, 0);
    return;
  }
  pool->tasks = tasks;
  pool->run = run;
  pool->context = context;
  run_shared(*pool, threads - 1);
  pool->busy.store(false);
}

uint32_t default_threads() {
  const char* configured = getenv("CODEC_NUM_THREADS");
  if (configured && *configured) {
    uint32_t threads = 0;
    for (const char* c = configured; *c; ++c) {
      if (*c < '0' || *c > '9' || threads > kMaxThreads) return 0;
      threads = 10 * threads + uint32_t(*c - '0');
    }
    return threads <= kMaxThreads ? threads : 0;
  }
  long cpus = 0;
#if defined(__linux__)
  cpu_set_t mine;
  if (sched_getaffinity(0, sizeof mine, &mine) == 0) cpus = CPU_COUNT(&mine);
#endif
  if (cpus < 1) cpus = sysconf(_SC_NPROCESSORS_ONLN);
  return cpus < 1 ? 1 : cpus > long{kMaxThreads} ? kMaxThreads : uint32_t(cpus);
}

}  // namespace codec
