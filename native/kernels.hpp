// The contract between the engine (which walks segments) and the instruction sets (which do the work).
// Each set fills one Kernels table; the scalar table says what every kernel means. Words as in spec/format.md section 1.
#pragma once
#include <cstddef>
#include <cstdint>

namespace codec {

// What a kernel found. The engine adds segment and stream; Python turns it into one CodecError.
enum class Status : uint32_t {
  ok = 0,
  checksum,       // CRC-32C of a part differs: found, expected
  too_short,      // a stream ends before its last item: found bytes, expected bytes
  too_long,       // bytes are left after the last item: found bytes, expected bytes
  out_of_range,   // a position lies outside its line: found position, expected limit
  not_ascending,  // positions repeat or go back: found position, expected at least
  padding,        // a bit outside the matrix or after the last item is set
  not_canonical,  // the stream says the same in more words than the rule allows
  bad_table,      // code lengths that do not form a complete code
  overflow,       // an integer weight too large to multiply exactly
  no_memory,
};

struct Result {
  Status status = Status::ok;
  uint32_t segment = 0, stream = 0;
  uint64_t found = 0, expected = 0;
  bool ok() const { return status == Status::ok; }
};

// Elements in a panel: the unit that is decoded into cache and used there.
constexpr uint32_t kPanel = 16384;
// Reads may run this many bytes past the end of any stream; every buffer we are given or make has them.
constexpr size_t kSlack = 64;

// Item kinds: what the value bits of an item mean (spec section 6.2).
enum class Kind : uint8_t { unsigned_, signed_, float_ };

// The element types of products. `acc` is the type that sums are kept in.
enum class Type : uint8_t { f64, f32, f16, bf16, e4m3, e5m2, i8, u8, i16, u16, i32, u32, i64, u64 };

enum class Form : uint8_t { mask, index, dense };

// One panel in one of the three forms. Lines are rows, or columns where `columns` is set (bitmap order "lanes").
// All pointers but `values` point into scratch that nobody else can write, so what was checked stays true;
// `values` may point into the caller's bytes: kernels read count items from it, plus slack, whatever they hold.
struct Panel {
  Form form;
  bool columns;            // lines are columns of the matrix
  bool padded;             // among the values are zeros that stand for no stored entry (fillers, zeros inside blocks)
  uint32_t row, column;    // of the first element, in the segment
  uint32_t lines, length;  // lines * length <= kPanel
  uint32_t count;          // items in values
  const uint64_t*
      mask;  // mask: lines * words(length) words, bit j of word i = position 64 i + j; bits past length are 0
  const uint16_t* index;   // index: count positions, ascending within a line, each < length
  const uint32_t* starts;  // index: lines + 1 entries, starts[lines] == count
  const uint8_t* values;   // packed items in walking order (dense: lines * length)
};

inline uint64_t words(uint64_t length) { return (length + 63) / 64; }

enum class Layout : uint32_t { dense, csr, bitmap, huffman, relative_index, run_length, n_m, block_offset };
constexpr uint32_t kLayouts = 8;
constexpr uint32_t kStreams = 4;  // the most streams that a layout has

// A layout's parameters, in the order in which its Python file lists them; what they mean stands in its own file here.
constexpr uint32_t kParams = 4;
struct Params {
  uint32_t at[kParams];
};

struct Span {
  const uint8_t* data;
  uint64_t size;
};

// Values coded by codebook (spec section 4.5): while a layout reads or writes, its values are codes, one byte each, and
// its width is 1; between its panels and everything that uses them stands look_up (codebook.inc).
struct Codebook {
  const uint8_t* entries;  // of all groups in turn, 2^bits each
  uint32_t bits;           // of a code; 0: there is no codebook
  uint64_t rows;           // rows of the matrix that share a group; 0: all
  uint64_t top;            // row of the matrix that is the segment's first
};

// How the bits of an item are ordered as a number: codes are assigned by intervals of it.
enum class Order : uint8_t { unsigned_, signed_, float_ };

// Streams that all segments share have one part, segment 0's; every segment's reader and writer sees it (spec section 4.4).

// Gap codes unpacked at a time.
constexpr uint32_t kCodes = 1024;

// Codes of n_m that are looked up: 12 bits of them at a time.
constexpr uint32_t kPatterns = 4096;

// Room for one panel in any form, and for its values in the accumulator's type. One per worker.
struct Scratch {
  uint64_t mask[kPanel + 2];  // one word per line at worst (lines of one element), and room to read past
  uint16_t index[kPanel + 64];
  uint32_t starts[kPanel + 1];
  uint64_t values[kPanel + 64];
  uint64_t decoded[kPanel + 64];  // values that a layout does not store side by side
  uint16_t codes[kCodes + 16];
  uint16_t patterns[kPatterns];  // masks of 16 elements, for the n_m of `patterns_of`; kept from segment to segment
  uint32_t patterns_of;
  uint64_t looked_up[kPanel + 64];  // values of a panel's codes
};

// One segment being read: its streams after the entropy stage, and how far each has been used.
struct Reader {
  uint32_t rows, cols, width;  // width: bytes of a value (1 for a code)
  uint32_t bits;               // of a value: 8 width, or those of a code; for layouts that keep values inside words
  Params params;
  Span stream[kStreams];
  uint32_t row, column;        // where the next panel begins
  uint64_t left, matrix_cols;  // the segment's first column in the matrix, and the matrix's columns
  uint64_t at[kStreams];       // the layout's own: items used
  uint64_t pending;            // the layout's own
  uint64_t spare[kStreams];  // items at a stream's end that may be padding: zeros that fill a last byte of packed codes
  Scratch* scratch;
};

// The first entry of a segment that a layout cannot say, and how many it stands for where the layout counts them.
struct Refused {
  uint64_t position = ~uint64_t{0};
  uint8_t found = 1;
};

// One segment in mask form, flat: element i of the segment is bit i. The waist of encoding.
struct Flat {
  uint32_t rows, cols, width;
  uint64_t count;         // stored entries
  const uint64_t* mask;   // words(rows * cols), and one to read past; bits past the end are 0
  const uint8_t* values;  // count items and slack
  uint8_t* dense;         // room for rows * cols items, for writers that walk in another order
  Span shared[kStreams];  // what the shared streams hold
  Refused* refused = nullptr;
  uint32_t bits = 0;  // of a value, as in Reader
  uint64_t left = 0;  // the segment's first column in the matrix
};

// What a tensor's sizes depend on (stats.inc): the counts that add up over its segments. Only 64-bit words, in the order
// in which codec/stats.py lists them.
constexpr uint32_t kRuns = 65536;  // the last bin is for that length less one, or more
constexpr uint32_t kAsked = 8;     // block shapes, and group sizes, that a caller may add
constexpr uint32_t kMostGroup = 64;
struct Tally {
  uint64_t gaps[kRuns];       // zeros before each stored entry over the flattened segment
  uint64_t zero_gaps[kRuns];  // stored entries before each of the others
  uint64_t keys[65536];       // top bits of the values' keys (256 used for one-byte values)
  uint64_t mask_bytes[256];   // of bitmap's stream "mask", order "rows"
  uint64_t lane_bytes[256];   // the same, order "lanes"
  uint64_t row_bytes[256];    // the bits of each row, eight at a time from its first
  uint64_t sixteens[17];      // groups of 16 along a row by stored entries, the last of a row short
  uint64_t blocks[6];         // 4x1, 8x1, 2x2, 4x4, 8x8, 16x16 blocks with a stored entry
  uint64_t clipped[9];        // elements that such blocks, and 1x4, 1x8, 1x16 before them, lack at a segment's edges
  uint64_t asked_blocks[kAsked], asked_clipped[kAsked];
  uint64_t asked_groups[kAsked][kMostGroup + 1];
  uint64_t stored, dropped_negatives, nans;
  uint64_t or_of_keys;  // the one that is not a sum
};
constexpr uint64_t kTally = sizeof(Tally) / sizeof(uint64_t);

// What to count beside that. A value is a NaN if its bits under `magnitude` are above `infinity`.
struct Question {
  Kind kind;
  uint64_t magnitude, infinity;
  uint32_t blocks, groups;
  uint32_t block[kAsked][2], group[kAsked];
};

// One segment's counts by place.
struct Places {
  uint64_t* rows;    // stored entries of each of its rows
  uint64_t* cols;    // adds up: stored entries of each of its columns
  uint64_t* panels;  // stored entries of each of its panels
  uint64_t *long_gaps,
      *long_zero_gaps;  // the lengths of kRuns - 1 and more: rows * cols / kRuns at most, the rest untouched
  uint64_t* part;       // its stored entries
  uint64_t *escapes, *fillers,
      *zero_escapes;  // 16 each, for codes of 1 to 16 bits: how often 2^k - 1 and 2^k fit into the gaps
  uint64_t* room;     // words(its columns) + 2
  uint32_t* lengths;  // kRuns
};

}  // namespace codec
