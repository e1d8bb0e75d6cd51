// The engine walks the segments of a matrix with the pool: whole operations, for the Cython border.
#pragma once
#include "huffman.hpp"
#include "kernels.hpp"

namespace codec {

// One layout, natively: a reader of panels and a writer from flat mask form.
struct LayoutKernels {
  bool (*flat)(
      const Params&);  // entries lie in row-major order without regard to rows: a segment may be read as one row
  bool (*columns)(const Params&);  // lines of its panels are columns: values do not come in row-major order
  Result (*open)(Reader&);
  Result (*next)(Reader&, Panel&);
  Result (*close)(const Reader&);
  void (*bound)(const Flat&, const Params&, uint64_t* bytes);  // the most that write() fills
  void (*write)(const Flat&, const Params&, uint8_t* const* out, uint64_t* bytes);
};

template <class T>
using IndexProduct = void (*)(const Panel&, const T*, const T*, size_t, T*, size_t, size_t);

template <class T>
struct Products {
  IndexProduct<T> dot_index, axpy_index, dot_dense, axpy_dense;
};

// One instruction set.
struct Kernels {
  const char* name;
  uint32_t (*crc32c)(uint32_t, const uint8_t*, size_t);
  LayoutKernels layouts[kLayouts];

  void (*expand_panel)(const Panel&, uint32_t width, bool streaming, uint8_t* out, uint64_t stride, Scratch&);
  uint64_t (*gather)(const uint8_t*, const uint8_t* keep, uint64_t n, uint32_t width, uint64_t nonzero,
                     uint64_t negative, uint64_t* mask, uint8_t* values, uint64_t* dropped);
  void (*pack_flat)(const uint8_t*, const uint64_t* mask, uint64_t n, uint32_t width, uint8_t* to);
  void (*drop_zeros)(Panel&, uint32_t width, uint64_t nonzero, uint8_t* packed, Scratch&);
  uint64_t (*append_panel)(const Panel&, uint32_t cols, uint32_t width, uint64_t* mask, uint8_t* values,
                           uint64_t count);
  void (*index_panel)(Panel&, Scratch&);
  void (*measure)(const Flat&, const Question&, const Places&, Tally&);

  void (*spread_codes)(const uint8_t*, uint64_t n, uint32_t bits, uint8_t* out);
  void (*pack_codes)(const uint8_t* codes, uint64_t n, uint32_t bits, uint8_t* to);
  void (*look_up)(const Panel&, const Codebook&, uint32_t width, uint8_t* out);
  void (*assign_codes)(const uint8_t* items, uint64_t n, uint32_t width, Order, const uint64_t* bounds,
                       const uint8_t* codes, uint32_t count, uint8_t* out);

  void (*key_histogram)(const uint8_t*, uint64_t n, uint32_t width, Kind, uint64_t* histogram, uint64_t* or_of_keys);
  uint64_t (*huffman_size)(const HuffmanCode&, const uint8_t*, uint64_t n);
  uint64_t (*huffman_encode)(const HuffmanCode&, const uint8_t*, uint64_t n, uint8_t* out);
  Result (*huffman_decode)(const HuffmanCode&, const uint8_t* part, uint64_t size, uint64_t limit, uint8_t* out,
                           uint64_t* n);

  Status (*convert_values)(Type from, const uint8_t* values, uint32_t n, Type acc, void* out, uint64_t limit);
  void (*dot_mask_f32)(const Panel&, const float*, float*);
  void (*axpy_mask_f32)(const Panel&, const float*, float*);
  void (*dot_mask_bf16)(const Panel&, const float*, float*);
  void (*axpy_mask_bf16)(const Panel&, const float*, float*);
  void (*pack_bf16_dot)(const float*, uint64_t n, float* out);
  Products<float> f32;
  Products<double> f64;
  Products<int64_t> i64;
  Products<int32_t> i32;
};

// dispatch.cpp. Which set: the one that CODEC_KERNEL names, else the first of avx512, avx2, scalar that runs here.
enum class Selection : uint32_t { ok, unknown, not_built, not_this_cpu };
const Kernels& kernels();
Selection select(const char* name);  // nullptr: the best
bool built(const char* name);
bool runs_here(const char* name);

// One stream of a frame: where its parts lie (proved by the caller to be inside `base`'s buffer, slack included).
struct Stream {
  const uint8_t* base;
  const uint64_t* offsets;    // per segment, from base; one more for the end
  const uint32_t* checksums;  // per segment
  const HuffmanCode* code;    // null: the part is the stream itself
  bool shared;                // one part, segment 0's, for all segments
};

// Values coded by codebook: which streams, and how.
struct Coding {
  uint32_t bits;    // of a code; 0: values are elements
  uint32_t codes;   // the stream of codes; kStreams: inside another
  uint64_t rows;    // rows that share a group of entries; 0: all. The codebook is the last stream.
  bool zero_first;  // the layout pads with code 0, so every group's first entry is zero
};

struct View {
  uint64_t rows, cols;
  uint32_t segment_rows, segment_cols;
  Layout layout;
  uint32_t width;
  Params params;
  uint32_t streams;
  Stream stream[kStreams];
  uint8_t* checked;  // per segment, 1 once its checksums were found right; null: check nothing
  Coding coding;
};

// Where a segment lies in the matrix; always contiguous in row-major order.
struct Place {
  uint64_t row, col;
  uint32_t rows, cols;
};
uint64_t segments(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols);
Place place(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols, uint64_t segment);

// Whether the offsets of every part ascend and leave kSlack readable bytes in a buffer of `size`.
bool inside(const Stream&, uint64_t segments, uint64_t size);

// Operations on a view. `always`: check every part again, whatever `checked` says.
Result check(const View&, uint64_t from, uint64_t to, uint32_t threads);
// `count` elements from `first` on, in row-major order; adds the entries stored in the segments read to *stored.
Result decode(const View&, uint64_t first, uint64_t count, uint8_t* out, bool always, uint64_t* stored,
              uint32_t threads);

// A product's x as its kernels read it: (n, batch) in the accumulator's type, which must outlive it.
struct Operand;
Operand* new_operand(Type value, Type acc, const void* x, uint64_t n, uint64_t batch);  // null: no memory
void free_operand(Operand*);

struct Product {
  Type value, acc;
  const Operand* x;
  void* y;  // (m, batch) in the accumulator's type: what is there is added to
  uint64_t batch;
  bool transposed;   // y += W^T x
  uint64_t limit;    // integers: the largest |weight| that cannot overflow a sum
  uint64_t nonzero;  // bits that make a weight non-zero under the frame's rule
};
// These take segments [first, last), in order and each once; a view may hold no more than those.
Result multiply(const View&, const Product&, uint64_t first, uint64_t last, uint32_t threads);

// The stored entries as CSR, behind the *count that are there: starts (rows + 1), room for `capacity` indices and values.
Result entries(const View&, uint64_t first, uint64_t last, int64_t* starts, int64_t* indices, uint8_t* values,
               uint64_t capacity, uint64_t* count);

// One tensor's streams while it is being encoded: parts by segment and stream.
struct Part {
  uint8_t* data;
  uint64_t size;
};

struct Streams {
  uint64_t segments;
  uint32_t streams;
  Part* part;  // [segment * streams + stream]
  bool shared[kStreams];
  uint64_t stored, dropped_negatives;
  uint32_t bits;  // of a value that is a code; 0: values are elements
  // Of the first entry that the layout cannot say: segment * 2^32 + position * 2^8 + its count (Flat); ~0: none.
  uint64_t refused;
};

struct Geometry {
  uint64_t rows, cols;
  uint32_t segment_rows, segment_cols, width;
  uint64_t nonzero, negative;
};

Streams* new_streams(uint64_t segments, uint32_t streams);
void free_streams(Streams*);
bool set_part(Part&, const uint8_t* data, uint64_t size);
Status encode(const Geometry&, Layout, const Params&, const uint8_t* dense, const uint8_t* keep, Streams*,
              uint32_t threads);
Status encode_csr(const Geometry&, Layout, const Params&, const int64_t* starts, const int64_t* indices,
                  const uint8_t* values, Streams*, uint32_t threads);
// From another layout of the same matrix and grid; with `codes`, codes to codes by that table of 256.
Result transcode(const View&, uint64_t first, uint64_t last, Layout, const Params&, Streams*, const uint8_t* codes,
                 uint32_t threads);

// Counting (measure.cpp), for whole matrices. The arrays are the caller's, zeroed: a row count for every row of every
// segment, a count for every column, `panels` of them for every panel of every segment, and longest_runs() of each of the
// others for every segment.
struct Measures {
  Tally* tally;
  uint64_t *rows, *cols, *panels, *long_gaps, *long_zero_gaps;
  uint64_t* segments;  // for every segment its stored entries, and 16 each of escapes, fillers and zero_escapes
};
constexpr uint32_t kPerSegment = 49;
uint64_t longest_runs(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols);
uint64_t panels(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols);
Result measure(const View&, uint64_t first, uint64_t last, const Question&, const Measures&, uint32_t threads);
Result measure(const Geometry&, const Question&, const uint8_t* dense, const uint8_t* keep, const Measures&,
               uint32_t threads);
void histogram(const Streams*, uint32_t stream, uint32_t width, Kind, uint64_t* counts, uint64_t* or_of_keys);
Status code_stream(Streams*, uint32_t stream, const HuffmanCode&, uint32_t threads);
void pack_stream(Streams*, uint32_t stream, uint32_t bits, uint32_t threads);  // codes of a byte each to `bits`
void write_parts(const Streams*, uint8_t* base, const uint64_t* offsets, uint32_t* checksums, uint32_t threads);

// kmeans.cpp: the k centers of weighted points in ascending order; see there.
Status kmeans(const double* x, const double* weight, uint64_t n, uint32_t k, bool start, uint32_t rounds,
              double* centers);

}  // namespace codec
