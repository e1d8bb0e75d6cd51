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

enum class Layout : uint32_t { dense, csr, bitmap, huffman, relative_index, run_length };
constexpr uint32_t kLayouts = 6;
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

// Streams that all segments share have one part, segment 0's; every segment's reader and writer sees it (spec section 4.4).

// Gap codes unpacked at a time.
constexpr uint32_t kCodes = 1024;

// Room for one panel in any form, and for its values in the accumulator's type. One per worker.
struct Scratch {
  uint64_t mask[kPanel + 2];  // one word per line at worst (lines of one element), and room to read past
  uint16_t index[kPanel + 64];
  uint32_t starts[kPanel + 1];
  uint64_t values[kPanel + 64];
  uint64_t decoded[kPanel + 64];  // values that a layout does not store side by side
  uint16_t codes[kCodes + 16];
};

// One segment being read: its streams after the entropy stage, and how far each has been used.
struct Reader {
  uint32_t rows, cols, width;  // width: bytes of a value
  Params params;
  Span stream[kStreams];
  uint32_t row, column;   // where the next panel begins
  uint64_t at[kStreams];  // the layout's own: items used
  uint64_t pending;       // the layout's own
  Scratch* scratch;
};

// One segment in mask form, flat: element i of the segment is bit i. The waist of encoding.
struct Flat {
  uint32_t rows, cols, width;
  uint64_t count;         // stored entries
  const uint64_t* mask;   // words(rows * cols), and one to read past; bits past the end are 0
  const uint8_t* values;  // count items and slack
  uint8_t* dense;         // room for rows * cols items, for writers that walk in another order
  Span shared[kStreams];  // what the shared streams hold
  uint64_t* refused;      // position of the first entry that the layout cannot say, ~0 while there is none
};

// What a tensor's sizes depend on (stats.inc). The arrays are the caller's, zeroed.
struct Measures {
  uint64_t* rows;        // stored entries of each row of each segment
  uint64_t* cols;        // stored entries of each column
  uint64_t* gaps;        // 256: items of layout huffman's stream "gaps"
  uint64_t* mask_bytes;  // 256: of bitmap's stream "mask", order "rows"
  uint64_t* lane_bytes;  // 256: the same, order "lanes"
  uint64_t*
      gap_lengths;  // 65536: zeros before each entry, over the flattened segment; the last bin for that many or more
  uint64_t* zero_gap_lengths;  // 65536: entries before each zero
  uint64_t* parts;             // stored entries of each segment
  uint64_t* escapes;           // 16 a segment: for k = 1 to 16, how often 2^k - 1 fits into the gaps
  uint64_t* fillers;           // 16 a segment: 2^k
  uint64_t* zero_escapes;      // 16 a segment: 2^k - 1 into the gaps before zeros
  uint32_t* lengths;           // 2 * 65536, zero before and after: room to count a segment's gaps
  uint64_t* keys;              // 65536 (256 for one-byte values): top bits of the values' keys
  uint64_t or_of_keys;
  uint64_t stored, dropped_negatives;
};

}  // namespace codec
