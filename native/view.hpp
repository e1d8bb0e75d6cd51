// Frames being read: the proved parts of some segments of one tensor, and what can be done with them.
#pragma once
#include "contract.hpp"
#include "grid.hpp"

namespace codec {

// A coding of the entropy stage, prepared for one stream.
struct Coder {
  Coding coding;
  uint32_t width;     // bytes of an item
  const void* state;  // the coding's own
};

// One stream of a frame: where the view's parts of it lie (proved by the caller to be inside the buffer, with the zeros
// that follow them).
struct Stream {
  const uint8_t* base;
  uint64_t size;            // bytes of the buffer
  const uint64_t* offsets;  // from base, one for each segment of the view; a shared stream has one in all
  const uint32_t *lengths, *checksums;
  const Coder* coder;  // null: the part is the stream itself
  bool shared;
};

// Values coded by codebook: which streams, and how.
struct ValueCoding {
  uint32_t bits;    // of a code; 0: values are elements
  uint32_t codes;   // the stream of codes; kStreams or more: inside another
  uint64_t rows;    // rows that share a group of entries; 0: all. The codebook is the last stream.
  bool zero_first;  // the layout pads with code 0, so every group's first entry is zero
};

// How far a segment was checked: its parts' checksums; once it was read to its end, all that its streams say; and where a
// product looked, whether none of its weights is an infinity or a NaN, or some is.
constexpr uint8_t kWhole = 1, kProved = 2, kFinite = 3, kInfinite = 4;

// Segments [first, first + count) of a frame. Numbers of segments are the frame's own everywhere.
struct View {
  Grid grid;
  Layout layout;
  uint32_t width;
  Params params;
  uint32_t alignment;  // zeros follow each part up to a multiple of this power of two
  uint64_t first, count;
  uint32_t streams;
  Stream stream[kStreams];
  uint8_t* checked;  // for each of its segments, how far it was checked; null: check nothing
  ValueCoding coding;
  mutable uint8_t shared_checked;  // the same for the shared parts
};

// Whether each of `parts` parts lies inside the stream's buffer, with the zeros that follow it.
bool inside(const Stream&, uint64_t parts, uint32_t alignment);

// The stored entries of some segments: where zeros fill their blocks or slices up, not fewer than the values that are not
// zero and not more than all values; elsewhere both are the same.
struct Stored {
  uint64_t least, most;
};

// The operations take segments, or elements, that the view holds. `always`: check every part again, whatever `checked`
// says.
Result check(const View&, uint64_t first, uint64_t last, uint32_t threads);
// `count` elements from `first` on, in row-major order; adds the entries of the segments read to *stored.
Result decode(const View&, uint64_t first, uint64_t count, uint8_t* out, bool always, Stored* stored, uint32_t threads);
// The stored entries as CSR, behind the *count that are there: starts (rows + 1), room for `capacity` indices and values.
Result entries(const View&, uint64_t first, uint64_t last, int64_t* starts, int64_t* indices, uint8_t* values,
               uint64_t capacity, uint64_t* count);

}  // namespace codec
