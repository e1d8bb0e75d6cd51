// Memory of one thread: the panel scratch, kept, and buffers of a segment's size, given back after each task if large.
#pragma once
#include <cstdlib>
#include <initializer_list>

#include "engine.hpp"

namespace codec {

struct Buffer {
  uint8_t* data = nullptr;
  uint64_t capacity = 0;

  bool reserve(uint64_t size) {
    if (size <= capacity) return true;
    free(data);
    data = static_cast<uint8_t*>(malloc(size));
    capacity = data ? size : 0;
    return data != nullptr;
  }
  void release() {
    free(data);
    data = nullptr;
    capacity = 0;
  }
  ~Buffer() { free(data); }
};

struct Workspace {
  Scratch scratch;
  uint8_t packed[(kPanel + 64) * 8 + kSlack];  // values of a dense panel without its zeros
  Buffer coded[kStreams];                      // streams out of the entropy stage
  Buffer mask, values, dense;                  // a segment in flat mask form
  Buffer room;                                 // of measure.cpp

  // What one thread may keep between calls.
  void trim() {
    constexpr uint64_t kKeep = 1 << 20;
    for (Buffer* b : {&coded[0], &coded[1], &coded[2], &coded[3], &mask, &values, &dense, &room})
      if (b->capacity > kKeep) b->release();
  }
};

Workspace& workspace();

// Puts a segment's streams, written in `layout`, into streams->part.
Status write_segment(Layout layout, const Params&, Flat, Streams*, uint64_t segment, Workspace&);

// Counts segments [first, last) of a matrix; `flatten` brings one of them into flat mask form in the workspace, and adds
// what it dropped to the tally.
using Flatten = Result (*)(void* context, uint64_t segment, Workspace&, Flat&, Tally&);
Result measure_segments(const Geometry&, uint64_t first, uint64_t last, const Question&, const Measures&,
                        uint32_t threads, Flatten, void* context);

// Orders streaming stores before whatever tells another thread that they are done.
inline void store_fence() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

}  // namespace codec
