// The threads that native work runs on: an own small pool, because OpenMP hangs in a child that was forked after use.
#pragma once
#include <cstdint>

namespace codec {

// More are never used, whatever a caller asks for.
constexpr uint32_t kMaxThreads = 64;

// Calls run(context, task, worker) once for every task in [0, tasks), on at most `threads` threads, and returns when
// all are done. Workers claim tasks in rising order; the calling thread is worker 0, and workers are below `threads`.
// What the tasks wrote is visible afterwards. Runs on fewer threads, down to the caller alone, where threads cannot be
// made, where another caller has the pool, and inside a task. Never throws; `run` must not throw either.
void parallel(uint32_t tasks, uint32_t threads, void (*run)(void* context, uint32_t task, uint32_t worker),
              void* context);

// Threads of a call that does not say how many: what CODEC_NUM_THREADS says, 0 where that is no number from 1 to
// kMaxThreads, or one for each CPU that this process may use.
uint32_t default_threads();

}  // namespace codec
