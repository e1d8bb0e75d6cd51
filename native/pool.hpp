// The threads that native work runs on: an own small pool, because OpenMP hangs in a child that was forked after use;
// or, where a caller asks for it, those of another library's OpenMP.
#pragma once
#include <cstdint>

namespace codec {

// More are never used, whatever a caller asks for.
constexpr uint32_t kMaxThreads = 64;

// Calls run(context, task, worker) once for every task in [0, tasks), on at most `threads` threads, and returns when
// all are done. Workers claim tasks in rising order; they are numbered below `threads`, and the calling thread is one.
// What the tasks wrote is visible afterwards. Runs on fewer threads, down to the caller alone, where threads cannot be
// made, where another caller has the pool, and inside a task. Never throws; `run` must not throw either.
void parallel(uint32_t tasks, uint32_t threads, void (*run)(void* context, uint32_t task, uint32_t worker),
              void* context);

// A parallel region: run(data) on each thread of a team, of which the calling thread is one. It is GOMP_parallel, which
// the OpenMP runtimes of GCC, LLVM and Intel have.
using Region = void (*)(void (*run)(void* data), void* data, unsigned threads, unsigned flags);

// Lends the threads of the runtime that another library of this process computes with. They spin for milliseconds after
// each of that library's loops: threads of the pool would have to share the CPUs with them.
void lend_threads(Region);
// From now on calls of `parallel` in this thread run on a team of so many lent threads, as many as that library takes
// (the runtime ends and starts threads for a team of another size); 0: on the pool. They run on the pool too where
// nobody has lent any, and in a child that was forked, where such a runtime hangs once its parent has used it.
void borrow_threads(uint32_t team);

// Threads of a call that does not say how many: what CODEC_NUM_THREADS says, 0 where that is no number from 1 to
// kMaxThreads, or one for each CPU that this process may use.
uint32_t default_threads();

}  // namespace codec
