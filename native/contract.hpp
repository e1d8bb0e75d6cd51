// The contract between the code that walks over segments and the instruction sets that do the work. Each set fills one
// Kernels table; the table of the scalar set says what every kernel means. Words are used as in spec/format.md section 1.
#pragma once
#include <cstddef>
#include <cstdint>

namespace codec {

// ---- results ---------------------------------------------------------------------------------------------------

// What a kernel found. Those who call kernels add the segment and the stream; Python turns it into one CodecError.
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

// ---- items and panels ------------------------------------------------------------------------------------------

// Elements in a panel: the unit that is decoded into cache and used there.
constexpr uint32_t kPanel = 16384;
// A panel in sliced form: positions of a byte each, and places that a word of 64 bits tells apart.
constexpr uint32_t kTileRows = 64, kTileCols = 256;
// Reads may run this many bytes past the end of any stream; every buffer that we are given or make has them.
constexpr size_t kSlack = 64;

// Item kinds: what the value bits of an item mean (spec section 6.2).
enum class Kind : uint8_t { unsigned_, signed_, float_ };

// How the bits of an item are ordered as a number: codes are assigned by intervals of it.
enum class Order : uint8_t { unsigned_, signed_, float_ };

// The element types of products, in the order in which codec/kernels.py lists them. `any` stands only in rows of
// product kernels.
enum class Type : uint8_t { f64, f32, f16, bf16, e4m3, e5m2, i8, u8, i16, u16, i32, u32, i64, u64, any };

// Bytes of an item of a type.
constexpr uint32_t item_bytes(Type type) {
  return type == Type::f64 || type == Type::i64 || type == Type::u64                         ? 8
         : type == Type::f32 || type == Type::i32 || type == Type::u32                       ? 4
         : type == Type::f16 || type == Type::bf16 || type == Type::i16 || type == Type::u16 ? 2
                                                                                             : 1;
}

// The forms of a panel. Each has a row of FormKernels.
enum class Form : uint8_t { mask, index, dense, sliced, block };
constexpr uint32_t kForms = 5;

// One panel in one of the forms. Lines are rows, or columns where `columns` is set (order "lanes" of bitmap).
// All pointers but `values`, `places` and `near` point into scratch that nobody else can write, so what was checked
// stays true; these may point into the caller's bytes: kernels read as many items from them, plus slack, whatever they
// hold.
struct Panel {
  Form form;
  bool columns;            // lines are columns of the matrix
  bool padded;             // among the values are zeros that stand for no stored entry (zeros inside blocks)
  uint32_t row, column;    // of the first element, in the segment
  uint32_t lines, length;  // lines * length <= kPanel, but for Reader::in_place
  uint32_t count;          // items in values
  // Form mask: lines * words(length) words. Bit j of word i is position 64 i + j; bits past the length are 0.
  const uint64_t* mask;
  const uint16_t* index;   // form index: count positions, ascending within a line, each < length
  const uint32_t* starts;  // form index: lines + 1 entries, starts[lines] == count; form sliced: the same of slices
  // Form block: lines / height rows of blocks of height x width elements, each in row-major order; `starts` of the rows,
  // `index` the block's number in its row, counted from the panel's left.
  uint32_t height, width;
  const uint8_t* places;  // form sliced: of each line, its place among the lanes of the slices
  const uint8_t* near;    // form sliced: count positions, step by step of each slice, eight lines side by side
  const uint8_t* values;  // packed items in walking order (form dense: lines * length)
  const uint8_t* ahead;   // not null: where the values of a later panel begin, to be fetched while this one's are used
  // Not 0: values are codes of so many bits side by side, from bit `bit` of the first byte on. Otherwise a code takes a byte.
  uint32_t packed, bit;
  const void* entries;  // not null: values are codes, for kernels that look them up in this table of kCodeEntries
};

// Entries, in the type of the sums, of the table that product kernels from codes read; a code's upper bits say nothing to
// them.
constexpr uint32_t kCodeBits = 4, kCodeEntries = 1 << kCodeBits;

inline uint64_t words(uint64_t length) { return (length + 63) / 64; }

// Values coded by codebook (spec section 7.2): while a layout reads or writes, its values are codes, one byte each, and
// its width is 1. FormKernels::look_up stands between its panels and everything that uses them.
struct Codebook {
  const uint8_t* entries;  // of all groups in turn, 2^bits each
  uint32_t bits;           // of a code; 0: there is no codebook
  uint64_t rows;           // rows of the matrix that share a group; 0: all
  uint64_t top;            // row of the matrix that is the segment's first
};

// Gap codes unpacked at a time.
constexpr uint32_t kCodes = 1024;
// Elements in a group of n_m at most, and codes of n_m that are looked up: 12 bits of them at a time.
constexpr uint32_t kMostGroup = 64;
constexpr uint32_t kPatterns = 4096;

// Room for one panel in any form, and for its values in the accumulator's type. One per worker.
struct Scratch {
  // Vectors are loaded from these whole: none of them should straddle a cache line.
  alignas(64) uint64_t mask[kPanel + 2];  // one word per line at worst (lines of one element), and room to read past
  alignas(64) uint16_t index[kPanel + 64];
  alignas(64) uint32_t starts[kPanel + 1];
  alignas(64) uint64_t values[kPanel + 64];
  alignas(64) uint64_t decoded[kPanel + 64];    // values that a layout does not store side by side
  alignas(64) uint64_t looked_up[kPanel + 64];  // values of a panel's codes
  alignas(64) uint64_t packed[kPanel + 64];     // values of a panel without its zeros
  alignas(64) uint8_t spread[kPanel + 128];     // codes of a panel, a byte each
  alignas(64) uint64_t entries[kCodeEntries];   // what codes stand for, for kernels that look them up themselves
  uint16_t codes[kCodes + 16];
  uint16_t patterns[kPatterns];  // masks of 16 elements, for the n_m of `patterns_of`; kept from segment to segment
  uint32_t patterns_of;
};

// What is done with a panel, once for each form.
struct FormKernels {
  // To dense elements: row r, column c of the segment at out + r * stride + c * width bytes.
  void (*expand)(const Panel&, uint32_t width, bool streaming, uint8_t* out, uint64_t stride, Scratch&);
  // Leaves out the values whose bits under `magnitude` are 0: form mask or index, the values in the scratch.
  void (*drop_zeros)(Panel&, uint32_t width, uint64_t magnitude, Scratch&);
  // Entries of a panel that is not padded to flat mask form, behind the `count` already there; returns how many are
  // there then. Values of a panel whose lines are columns do not come in flat order: only its bits are set, and they are
  // packed afterwards. Null for dense panels, which are padded.
  uint64_t (*append)(const Panel&, uint32_t cols, uint32_t width, uint64_t* mask, uint8_t* values, uint64_t count);
  // To form index, in the scratch. Null where no product needs it.
  void (*to_index)(Panel&, uint32_t width, Scratch&);
  // The codes of a panel to the values that they stand for, every row's by the codebook of its group.
  void (*look_up)(const Panel&, const Codebook&, uint32_t width, uint8_t* out);
};

// ---- layouts ---------------------------------------------------------------------------------------------------

enum class Layout : uint32_t {
  dense,
  csr,
  bitmap,
  huffman,
  relative_index,
  run_length,
  n_m,
  block_offset,
  sell,
  context
};
constexpr uint32_t kLayouts = 10;
// Room for a layout's streams, with its codebook, and for its parameters: more than any layout has.
constexpr uint32_t kStreams = 16;
constexpr uint32_t kParams = 16;

// A layout's parameters, in the order in which its Python file lists them; what they mean stands in its own file here.
struct Params {
  uint32_t at[kParams];
};

struct Span {
  const uint8_t* data;
  uint64_t size;
};

constexpr uint64_t kCleared = 4096;

// One segment being read: its streams after the entropy stage, and how far they have been used.
struct Reader {
  uint32_t rows, cols, width;  // width: bytes of a value (1 for a code)
  uint32_t bits;               // of a value: 8 width, or those of a code; for layouts that keep values inside words
  Params params;
  Span stream[kStreams];
  uint64_t spare[kStreams];  // items at a stream's end that may be padding: zeros that fill a last byte of packed codes
  uint32_t row, column;      // where the next panel begins
  uint64_t part;             // number of the segment in its view
  uint64_t left, matrix_cols;  // the segment's first column in the matrix, and the matrix's columns
  uint64_t taken;              // values handed out so far
  bool packed;                 // the values are codes that lie `bits` apart, and so are those of its panels
  bool proved;                 // the segment was read to its end before: a layout may check only what reads lean on
  // Values are only read, and where they lie: a panel that is nothing but values may have more than kPanel of them.
  bool in_place;
  void* state;  // the layout's own: LayoutKernels::state bytes, the first kCleared of which are 0 at first
  Scratch* scratch;
  // Where the segment's elements will be written, side by side: a layout that fetches asks for these cache lines while it
  // decodes what goes there. Null: they are not wanted.
  uint8_t* target;
};

// The first entry of a segment that a layout cannot say, and how many it stands for where the layout counts them.
struct Refused {
  uint64_t position = ~uint64_t{0};
  uint8_t found = 1;
};

// One segment in mask form, flat: element i of the segment is bit i. The waist of encoding.
struct Flat {
  uint32_t rows = 0, cols = 0, width = 0;
  uint64_t left = 0;                // the segment's first column in the matrix
  uint64_t count = 0;               // stored entries
  const uint64_t* mask = nullptr;   // words(rows * cols), and one to read past; bits past the end are 0
  const uint8_t* values = nullptr;  // count items and slack
  uint8_t* dense = nullptr;         // room for rows * cols items, for writers that walk in another order
  Span shared[kStreams] = {};       // what the shared streams hold
  Refused* refused = nullptr;

  uint64_t size() const { return uint64_t{rows} * cols; }
};

// One layout: a reader of panels and a writer from flat mask form.
struct LayoutKernels {
  bool (*flat)(
      const Params&);  // entries lie in row-major order without regard to rows: a segment may be read as one row
  bool (*columns)(const Params&);                   // values of its panels do not come in row-major order
  bool by_panel;                                    // it reads its values with take_values alone
  bool fetches;                                     // it takes long enough to use Reader::target
  uint64_t (*state)(uint64_t rows, uint64_t cols);  // bytes of Reader::state for a segment of that extent
  // The most bytes that a stream can take, out of the entropy stage, in a segment of so many rows and columns.
  uint64_t (*most)(uint64_t rows, uint64_t cols, uint32_t width, const Params&, uint32_t stream);
  Result (*shared)(const Reader&);  // checks the streams that all segments share, once a call, before any segment
  Result (*open)(Reader&);
  Result (*next)(Reader&, Panel&);
  // One row of a proved segment as a panel, in place of next() and close(). Rows of kPanel elements at most, asked for in
  // ascending order; entries of those between are not looked at. Null: the layout has to read all, as one whose panels are
  // columns does.
  Result (*row)(Reader&, uint32_t row, Panel&);
  // Fetches the positions of a row of a proved segment before row() asks for it, as no prefetcher of the processor foresees
  // where it is, and returns where its values begin (Panel::ahead). Null: one cannot know without the rows before. `streams`
  // as they are stored, values of `bits` bits.
  const uint8_t* (*fetch)(const Span* streams, const Params&, uint32_t bits, uint32_t row);
  Result (*close)(const Reader&);
  void (*bound)(const Flat&, const Params&, uint64_t* bytes);  // the most that write() fills
  void (*write)(const Flat&, const Params&, uint8_t* const* out, uint64_t* bytes);
};

// ---- codings ---------------------------------------------------------------------------------------------------

enum class Coding : uint32_t { huffman, rans };
constexpr uint32_t kCodings = 2;

// One coding of the entropy stage: the items of a stream <-> the bytes of a part. `state` is what a Coder holds.
struct CodingKernels {
  uint64_t (*claimed)(const uint8_t* part, uint64_t size);  // the items that a part says it has, true or not
  uint64_t (*room)(const void* state, const uint8_t* items, uint64_t n);  // the most bytes that encode() fills
  uint64_t (*encode)(const void* state, const uint8_t* items, uint64_t n, uint8_t* out);
  // At most `limit` items to out, which has room for them and kSlack bytes; *n: how many they are, when ok.
  Result (*decode)(const void* state, const uint8_t* part, uint64_t size, uint64_t limit, uint8_t* out, uint64_t* n);
};

// ---- products --------------------------------------------------------------------------------------------------

// The lines of a panel run along x, and each has one sum; or along the sums, and each has one element of x.
enum class Direction : uint8_t { dot, axpy };

// What a kernel reads for values: these, or codes of a codebook, which it looks up in Panel::entries: as they are stored, of
// 4 bits each from a whole byte on; or a byte each.
enum class Codes : uint8_t { none, fours, bytes };

// Rows of Kernels::products at most: an operand has a flag for each.
constexpr uint32_t kMostRows = 256;

// What a kernel takes for items of x: as those of the sums; or what is prepared for it of x that holds bf16 numbers alone (2
// bytes each), of numbers that are sums of three bf16 numbers (6 bytes), or of integers that fit a signed byte.
enum class Items : uint8_t { sums, bf16, parts, i8 };
constexpr uint32_t kItems = 4;

// One product kernel: a row of one of product/*_rows.inc.
struct ProductKernel {
  const char* name;
  Form form;
  Direction direction;
  Type value;            // the weights' type that it reads; any: they are converted to the accumulator's first
  Type accumulator;      // of x and of the sums
  uint64_t least, most;  // columns of the batch
  bool finite;           // x must hold no infinity and no NaN
  bool (*fits)(const Panel&,
               uint64_t at);  // what else a panel must be, whose first position is `at` in x; null: nothing
  // A strip of x, (n, strip), of which `columns` are wanted, as the kernel wants it, to room for prepared_rows(n) rows of a strip;
  // null: as it is. A batch of several strips has each at strip_rows(n) rows behind the one before, of items of the sums' type.
  void (*prepare)(const void* x, uint64_t n, uint64_t strip, uint64_t columns, void* out);
  // Adds to y, whose first row is the panel's first line (dot) or position (axpy). x and y are in rows of `strip` items, of
  // which the first `columns` are wanted: a kernel may read and add up more of them, as many as a vector of 16 bytes or
  // the next power of two needs.
  void (*run)(const Panel&, const void* x, void* y, uint64_t strip, uint64_t columns);
  Codes codes = Codes::none;
  Items items = Items::sums;
  uint32_t column = 0;       // of other items: bytes from one column to the next
  bool (*here)() = nullptr;  // whether it is for this CPU; null: for each that has the set
};

// Columns of a batch that are multiplied side by side: x and sums are kept in strips of them.
constexpr uint32_t kMostStrip = 32;
inline uint32_t strip_of(uint64_t batch) {
  return batch <= 1 ? 1 : batch <= 4 ? 4 : batch <= 8 ? 8 : batch <= 16 ? 16 : kMostStrip;
}
// Rows of a strip of x, so that each begins on a cache line. Behind the last strip there is room for kTileCols rows more:
// a panel in sliced form may begin at any position, and what it names behind the last one is of the next strip, or zero.
inline uint64_t strip_rows(uint64_t n) { return (n + 15) / 16 * 16; }
// Rows of what is prepared of a single strip: whole panels in sliced form from any position on.
inline uint64_t prepared_rows(uint64_t n) { return (n + kTileCols - 1) / kTileCols * kTileCols + kTileCols; }
// Bytes of x as a kernel takes it: of an item, and of a column from one strip to the next.
inline uint64_t bytes_of(const ProductKernel& row) {
  return row.items == Items::bf16    ? 2
         : row.items == Items::parts ? 6
         : row.items == Items::i8    ? 1
                                     : item_bytes(row.accumulator);
}
inline uint64_t column_bytes(const ProductKernel& row, uint64_t n) {
  return (row.items == Items::sums ? strip_rows(n) : (n + 63) / 64 * 64) * bytes_of(row);
}

// Whether an array of a type can be put into strips of another, and be rounded from them: to nearest, ties to even.
constexpr bool widens_to(Type item, Type type) {
  return item == type || (type == Type::f32 && (item == Type::f16 || item == Type::bf16));
}

// Item (i, j) of an array of two dimensions stands i * row + j * column items behind the first.
struct Strides {
  int64_t row, column;
};

// Columns that lie in images: `places` of them in each, the images `step` items apart. No places: there are no images.
struct Images {
  uint64_t places = 0;
  int64_t step = 0;
};

// An array (rows, columns), and the same in strips: (rows, strip) for each strip's columns in turn, each strip `height` rows
// behind the one before. `type` is that of the items in strips, `item` that of the array's (see widens_to). Of columns in
// images, the first is at `place` of the image that `array` points to.
struct Strips {
  Type type, item;
  uint64_t rows, columns;
  uint32_t strip;
  uint64_t height;
  void* array;
  Strides at;
  void* strips;
  Images images = {};
  uint64_t place = 0;
  bool streaming = false;  // the array is so large that several strips of it are written past the cache
};

// Pixels under a filter: the array whose item (row, column) is the one at `row` of the filter (a channel, a line and a pixel
// of the kernel) where it stands for `column` of the output (an image, a line and a pixel of it). The first of two is for
// lines, the second for pixels; steps are in items. `padding` is before the first line and pixel: a filter also stands over
// zeros there, and as far behind the last as its output says.
struct Window {
  uint64_t images, channels, height, width;  // of the pixels
  int64_t image, channel, line, pixel;       // from one to the next
  uint64_t kernel[2], stride[2], dilation[2], padding[2], output[2];

  uint64_t rows() const { return channels * kernel[0] * kernel[1]; }
  uint64_t columns() const { return images * output[0] * output[1]; }
};

// What a set that multiplies by tiles has to say of them.
struct TileKernels {
  void (*release)();  // for the calling thread, behind its last product: tiles in use slow down what runs next
  // One instruction, for tests: C (m, n) of f32 or i32, plus A (m, k) B (k, n) of pairs of bf16 or of four signed bytes.
  void (*dot)(bool bytes, uint32_t m, uint32_t k, uint32_t n, const void* a, const void* b, void* c);
};

// The non-zero weights of a filter, of the type of the sums: `n` of them, each with the column of the filter that it stands in
// (a channel, a line and a pixel) and, for each column, how many items behind its place in padded images the pixel stands.
struct Taps {
  const uint64_t* columns;
  const int64_t* offsets;
  const void* weights;
  uint64_t n;
  const void* bias;  // an item; null: none
};

// ---- the table -------------------------------------------------------------------------------------------------

struct Statistic;  // stats/stats.hpp

// One instruction set.
struct Kernels {
  const char* name;
  uint32_t (*crc32c)(uint32_t, const uint8_t*, size_t);
  const FormKernels* forms;      // in the order of enum Form
  const LayoutKernels* layouts;  // in the order of enum Layout
  const CodingKernels* codings;  // in the order of enum Coding
  const Statistic* statistics;
  uint32_t statistic_count;
  const ProductKernel* products;
  uint32_t product_count;

  // Dense elements to flat mask form by the zero rule (`nonzero`: bits of which one is set), or by `keep` (one byte an
  // element) where that is given. Returns the count of stored entries; adds the elements equal to `negative` that are
  // not among them to *dropped.
  uint64_t (*compress)(const uint8_t*, const uint8_t* keep, uint64_t n, uint32_t width, uint64_t nonzero,
                       uint64_t negative, uint64_t* mask, uint8_t* values, uint64_t* dropped);
  void (*pack)(const uint8_t*, const uint64_t* mask, uint64_t n, uint32_t width, uint8_t* to);  // elements with a bit
  uint64_t (*copy_bits)(const uint64_t* from, uint64_t at, uint64_t n, uint64_t* to, uint64_t to_at);
  uint64_t (*count_zeros)(const uint8_t*, uint64_t n, uint32_t width);  // items whose bits are all 0
  void (*align_rows)(const Flat&, uint64_t* lines);

  void (*spread_codes)(const uint8_t*, uint64_t n, uint32_t bits, uint8_t* out);
  void (*spread_panel)(Panel&, Scratch&);  // codes that are packed to a byte each
  void (*pack_codes)(const uint8_t* codes, uint64_t n, uint32_t bits, uint8_t* to);
  void (*assign_codes)(const uint8_t* items, uint64_t n, uint32_t width, Order, const uint64_t* bounds,
                       const uint8_t* codes, uint32_t count, uint8_t* out);

  void (*key_range)(const uint8_t*, uint64_t n, uint32_t width, Kind, uint64_t* least, uint64_t* most);
  uint64_t (*count_keys)(const uint8_t*, uint64_t n, uint32_t width, Kind, uint32_t shift, uint64_t first,
                         uint64_t* counts, uint64_t size);

  // From the array to the strips, with zeros in columns and rows that the array does not have.
  void (*to_strips)(const Strips&);
  // From the pixels under a filter, of type `item`, to strips of their columns from `left` on, in the same way.
  void (*unroll)(Type type, Type item, const void* pixels, const Window&, uint64_t left, uint64_t columns,
                 uint32_t strip, uint64_t height, void* to);
  // One channel of an image, of type `item`, into what has zeros around it as its padding says, in lines of `line` items.
  void (*put_inside)(Type type, Type item, const void* pixels, const Window&, uint64_t line, void* to);
  // The output of a filter over so many of such channels of `lines` lines, side by side, with kSlack bytes behind them; of
  // type `item`.
  void (*filter)(Type type, Type item, const void* padded, const Window&, uint64_t channels, uint64_t lines,
                 uint64_t line, const Taps&, void* out);
  // From the strips to the array: each row times its scale, plus its bias, where these are not null.
  void (*from_strips)(const Strips&, const void* scale, const void* bias);

  Status (*convert_values)(Type from, const uint8_t* values, uint32_t n, Type to, void* out, uint64_t limit);

  const TileKernels* tiles = nullptr;  // null: none
};

// dispatch.cpp. Which set is in use: the one that CODEC_KERNEL names, else the first of amx, avx512, avx2, scalar that
// runs here.
enum class Selection : uint32_t { ok, unknown, not_built, not_this_cpu };
const Kernels& kernels();
Selection select(const char* name);  // nullptr: the best
bool built(const char* name);
bool runs_here(const char* name);

}  // namespace codec
