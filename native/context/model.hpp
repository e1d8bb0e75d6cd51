// The model of one segment in layout context (spec section 5.10): what the mask and the values are coded by, as the
// head of a part says it.
#pragma once
#include "../contract.hpp"

namespace codec {

constexpr uint32_t kMostLanes = 64;  // states side by side
constexpr uint32_t kBankLanes = 16;  // of a bank, which has words of its own, so that banks do not wait for each other
constexpr uint32_t kMostBanks = kMostLanes / kBankLanes;
constexpr uint32_t kMaskBits = 14;      // bits of a probability of the mask
constexpr uint32_t kMostSums = 63;      // classes of an element
constexpr uint32_t kMostLines = 64;     // symbols of rows, and of columns
constexpr uint32_t kMostChances = 256;  // probabilities of the mask
constexpr uint32_t kMostTables = 16;
constexpr uint32_t kLeastScale = 5;            // bits of the sum of a table's counts
constexpr uint32_t kMostTableItems = 1 << 15;  // items of all tables that symbols are looked up in
constexpr uint32_t kMostCoarse = 2, kMostNear = 3;
constexpr uint32_t kMostColumns = 1024;  // of a group that is coded by whole vectors
constexpr uint32_t kLevels = 321;        // probabilities that can be said
constexpr uint32_t kLow = 1u << 16;      // states are at least this; words of 16 bits bring them there
constexpr uint32_t kMostRaw = 56;        // raw bits of a value: one load of 64 bits, shifted by up to 7, holds them

// A signed number as one from 0 on, and the bits of its Golomb code.
inline uint64_t fold(int64_t value) { return value < 0 ? uint64_t(-value) * 2 - 1 : uint64_t(value) * 2; }
inline uint32_t golomb_bits(uint64_t value, uint32_t order) {
  return 2 * (64 - uint32_t(__builtin_clzll((value >> order) + 1))) - 1 + order;
}

// How the bits of a value are read as a key: as they are; with the top bit inverted; without the top bit, which is raw,
// or the lowest bit of the symbol; or the negative of a value whose top bit is set, which is raw.
enum class Sign : uint32_t { none, inverted, raw, modelled, negated };

inline bool is_raw(Sign sign) { return sign == Sign::raw || sign == Sign::negated; }

// A value as its key and its top bit, and the other way round; the top bit of key 0 says nothing. The negative of the least
// integer is no key.
template <class T>
T folded_value(T item) {
  const T top = T(T(1) << (8 * sizeof(T) - 1));
  return item & top ? T(top - item) : item;
}

// A coarse mask: which blocks of rows x cols hold stored elements, a bit each in row-major order.
struct Coarse {
  uint32_t rows, cols;
  uint64_t across, count;
  uint8_t* live;
};

// The panels of a segment, as begin_panel() cuts them: ranges of its elements in row-major order.
struct Panels {
  uint64_t rows, cols, tall, across;  // rows of a panel; panels side by side

  Panels(uint64_t rows, uint64_t cols)
      : rows(rows), cols(cols), tall(cols <= kPanel ? kPanel / cols : 1), across((cols + kPanel - 1) / kPanel) {}
  uint64_t count() const { return (rows + tall - 1) / tall * across; }
  // At most so many for a segment of so many elements.
  static uint64_t most(uint64_t size) { return size / (kPanel / 2) + 1; }
  uint64_t begin(uint64_t panel) const {
    if (panel >= count()) return rows * cols;
    return panel / across * tall * cols + panel % across * kPanel;
  }
};

// How all rows, or all columns, are classed: each has a symbol, which is coded with the values. That is its class, or,
// where symbol 0 stands for lines without stored elements, its class plus 1.
struct Lines {
  uint32_t symbols;  // 1: none is coded, and all classes are 0
  bool dead;         // whether symbol 0 stands for dead lines
  uint32_t scale;
  uint16_t counts[kMostLines];  // of each symbol, of 2^scale
  uint8_t* classes;             // of each line, 0 for a dead one
  uint8_t* live;                // 0 for a dead line, else all bits set

  bool coded() const { return symbols > 1; }
  uint32_t most() const { return symbols - 1 - dead; }  // the largest class
};

struct ContextModel {
  uint64_t stored;
  uint32_t lanes;  // log2
  uint32_t coarse_count;
  Coarse coarse[kMostCoarse];
  Lines rows, cols;
  uint32_t sums;                 // classes of an element: of its row plus of its column
  uint32_t group;                // columns that are coded one after the other; 1: all together
  uint32_t near_count;           // how many columns before an element in its group say more of it
  uint32_t near[kMostNear];      // how far before
  uint16_t level[kMostChances];  // [near bits * sums + class]
  uint32_t tables;
  uint8_t table_of[kMostSums + 1];  // by class
  Sign sign;
  uint32_t zeros, low, symbols, scale;
  uint32_t fine;                      // bits of `first` below those of a symbol
  uint64_t first;                     // where symbols begin
  uint16_t counts[kMostTables][256];  // of each symbol, of 2^scale in a table
  bool shortened;                     // whether panels leave out raw bits that are 0
  uint8_t* left_out;                  // lowest raw bits that are not written, of each panel
  uint64_t raw_size;                  // bytes of all raw bits then

  uint32_t banks() const { return lanes > 4 ? 1u << (lanes - 4) : 1; }
  uint32_t chances() const { return sums << near_count; }
  uint64_t base() const { return first << (low - fine); }  // the least key, without its zeros
  uint32_t field() const { return low + is_raw(sign); }
  bool limited() const { return coarse_count || rows.dead || cols.dead; }  // whether there are dead elements
  uint64_t raw_bytes() const { return shortened ? raw_size : (stored * field() + 7) / 8; }
};

// The probability of a one at a level, of 2^kMaskBits: 161 levels up to one half that keep 4 bits behind the first, and
// as many from there on.
inline uint32_t chance_at(uint32_t level) {
  const uint32_t near = level <= 160 ? level : 320 - level, exponent = near / 16, rest = near % 16;
  const uint32_t chance = exponent ? (16 + rest) << (exponent - 1) : rest;
  return level <= 160 ? chance : (1u << kMaskBits) - chance;
}

constexpr uint32_t kCountOrders = 4;

// The order of the code of a count's difference to the one before it, which differs the more the larger it is.
inline uint32_t count_order(uint32_t n, uint64_t before) {
  const uint32_t sum = n + (before ? 64 - uint32_t(__builtin_clzll(before)) : 0) / 2;
  return sum ? sum - 1 : 0;
}

inline uint32_t key_width(uint32_t width, Sign sign) { return 8 * width - (sign >= Sign::raw); }

// Bytes that the arrays of a model take for a segment of so many rows and columns.
inline uint64_t model_room(uint64_t rows, uint64_t cols) {
  return 2 * (rows + cols + 2 * kSlack) + kMostCoarse * (rows * cols / 8 + 16) + Panels::most(rows * cols);
}
// Points a model's arrays into such room.
void place_model(ContextModel&, uint64_t rows, uint64_t cols, uint8_t* room);

// Bytes of a head; *bytes: how many it has. The status says what is wrong with it, `found` what was there.
Status read_model(const uint8_t* part, uint64_t size, uint32_t rows, uint32_t cols, uint32_t width, ContextModel&,
                  uint64_t* bytes, uint64_t* found);
// The head of a model; returns its bytes, which are at most most_head().
uint64_t write_model(const ContextModel&, uint32_t rows, uint32_t cols, uint32_t width, uint8_t* out);
uint64_t most_head(uint64_t rows, uint64_t cols);

// A line's symbol from its class, and the other way round, for all n lines whose symbols are in `classes`.
inline uint8_t line_symbol(const Lines& lines, uint64_t i) {
  return uint8_t(!lines.dead ? lines.classes[i] : lines.live[i] ? lines.classes[i] + 1 : 0);
}
void class_lines(Lines&, uint64_t n);

// What the states of a table's symbols become, by the low bits of a state: symbol in bits 0 to 7, bias in 8 to 19,
// count - 1 in 20 to 31.
void fill_table(const uint16_t* counts, uint32_t symbols, uint32_t* items);

// The model that makes a segment smallest, in `room` of model_room(); *bits: about how many bits its part takes. `work`
// has fit_room() bytes.
uint64_t fit_room(const Flat&);
void fit_model(const Flat&, ContextModel&, uint8_t* work, double* bits);
// Stored elements of a segment from the element `begin` to `end`.
uint64_t ones_of(const Flat&, uint64_t begin, uint64_t end);
// log2 of n, the same everywhere.
double log2_of(uint64_t n);

}  // namespace codec
