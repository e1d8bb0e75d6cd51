// Tensors being encoded: elements to a layout's streams, the entropy stage on them, and the copy into a frame.
#pragma once
#include "contract.hpp"
#include "grid.hpp"
#include "view.hpp"

namespace codec {

struct Part {
  uint8_t* data;
  uint64_t size;
};

// One tensor's streams: parts by segment and stream.
struct Streams {
  uint64_t segments;
  uint32_t streams;
  Part* part;             // [segment * streams + stream]
  Part shared[kStreams];  // what the streams hold that all segments share; those have data here, others none
  uint64_t stored;        // entries, zeros that were kept among them
  uint64_t dropped_negatives;
  // Of the first entry that the layout cannot say: segment * 2^32 + position * 2^8 + its count (Flat); ~0: none.
  uint64_t refused;
};

// A matrix, the bytes of an element, the bits that make one non-zero, and the pattern of -0.0 if that is a zero, else 0.
struct Matrix {
  Grid grid;
  uint32_t width;
  uint64_t nonzero, negative;
};

Streams* new_streams(uint64_t segments, uint32_t streams);
void free_streams(Streams*);
bool set_part(Part&, const uint8_t* data, uint64_t size);
// Asks the C library to give freed memory back: it keeps what lies between blocks that are in use, and a large tensor is
// one part after the other.
void give_back();

// Segments [first, last) from their dense elements; `keep`: a byte an element, non-zero where it is stored, or null for
// the zero rule.
Status encode(const Matrix&, uint64_t first, uint64_t last, Layout, const Params&, const uint8_t* dense,
              const uint8_t* keep, Streams*, uint32_t threads);
// From CSR arrays that the caller has proved.
Status encode_csr(const Matrix&, Layout, const Params&, const int64_t* starts, const int64_t* indices,
                  const uint8_t* values, Streams*, uint32_t threads);
// Segments [first, last) of the streams from another layout of the same matrix, in any grid; the view must hold them.
// With `codes`, codes to codes by that table of 256.
Result transcode(const View&, const Grid&, uint64_t first, uint64_t last, Layout, const Params&, Streams*,
                 const uint8_t* codes, uint32_t threads);

// The entropy stage, on streams that are not shared. The least and the largest key of a stream's items.
void key_range(const Streams*, uint32_t stream, uint32_t width, Kind, uint64_t* least, uint64_t* most);
// counts[(key >> shift) - first] += 1 for each item, where that is below `size`; returns the OR of all keys.
uint64_t histogram(const Streams*, uint32_t stream, uint32_t width, Kind, uint32_t shift, uint64_t first,
                   uint64_t* counts, uint64_t size);
Status code_stream(Streams*, uint32_t stream, const Coder&, uint32_t threads);
void pack_bits(Streams*, uint32_t stream, uint32_t bits, uint32_t threads);  // codes of a byte each to `bits`

// Moves the parts to their offsets, so that they are not there twice, and fills in their checksums, both by stream, then
// segment; not those of shared streams.
void move_parts(Streams*, uint8_t* base, const uint64_t* offsets, uint32_t* checksums, uint32_t threads);

}  // namespace codec
