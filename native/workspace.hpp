// Memory of one thread: the panel scratch, kept, and buffers of a segment's size, given back after each task if large.
#pragma once
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "view.hpp"

namespace codec {

// Memory that begins on a cache line.
struct Buffer {
  uint8_t* data = nullptr;
  uint64_t capacity = 0;

  bool reserve(uint64_t size) {
    if (size <= capacity) return true;
    free(data);
    size = (size + 63) / 64 * 64;
    data = static_cast<uint8_t*>(aligned_alloc(64, size));
    capacity = data ? size : 0;
    return data != nullptr;
  }
  void release() {
    free(data);
    data = nullptr;
    capacity = 0;
  }
  // What one thread may keep between calls.
  void trim() {
    if (capacity > 1 << 20) release();
  }
  ~Buffer() { free(data); }
};

// The segment of a view that was decoded last, in flat mask form, and how far a walk over its elements has come: before
// element `at` lie `items` values.
struct Source {
  const View* view = nullptr;  // null: none
  uint64_t segment = 0, begin = 0, at = 0, items = 0;
  Buffer mask, values;
  Flat flat;
};

struct Workspace {
  Scratch scratch;
  Buffer state;                // of the layout that reads
  Buffer last[kStreams];       // parts behind which their buffer ends, with slack
  Buffer coded[kStreams];      // streams out of the entropy stage
  Buffer mask, values, dense;  // a segment in flat mask form
  Buffer room;                 // of stats/count.cpp
  Buffer sums, strips;         // of product/multiply.cpp
  Source source;

  void trim() {
    source.view = nullptr;
    for (Buffer& b : last) b.trim();
    for (Buffer& b : coded) b.trim();
    for (Buffer* b : {&state, &mask, &values, &dense, &room, &strips, &source.mask, &source.values}) b->trim();
  }
};

// The calling thread's.
inline Workspace& workspace() {
  static thread_local Workspace work;
  return work;
}

// A flat segment of `n` elements to be filled, in the workspace's mask and values: room for `most` values of `width`
// bytes.
inline Status begin_flat(uint64_t n, uint64_t most, uint32_t width, Workspace& work, Flat& flat) {
  if (!work.mask.reserve((words(n) + 2) * 8) || !work.values.reserve(most * width + 64 * 8 + kSlack))
    return Status::no_memory;
  uint64_t* mask = reinterpret_cast<uint64_t*>(work.mask.data);
  mask[words(n)] = mask[words(n) + 1] = 0;
  flat = Flat();
  flat.rows = 1;
  flat.cols = uint32_t(n);
  flat.width = width;
  flat.mask = mask;
  flat.values = work.values.data;
  return Status::ok;
}

// The rows and columns that a flat segment's elements are.
inline void place_flat(const Place& p, Flat& flat) {
  flat.rows = p.rows;
  flat.cols = p.cols;
  flat.left = p.col;
}

inline Result failed(Status status, uint32_t stream = 0, uint64_t found = 0, uint64_t expected = 0) {
  Result r;
  r.status = status;
  r.stream = stream;
  r.found = found;
  r.expected = expected;
  return r;
}

// Tasks hand their first failure to whoever started them: the lowest segment's, whatever the threads did.
struct Failure {
  Result result;
  bool set = false;
  int lock = 0;

  void report(Result r, uint64_t segment) {
    r.segment = uint32_t(segment);
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {
    }
    if (!set || r.segment < result.segment) result = r;
    set = true;
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
  }
};

// Orders streaming stores before whatever tells another thread that they are done.
inline void store_fence() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

}  // namespace codec
