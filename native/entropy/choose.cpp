// Which code a stream gets: sums are of integers only, so that the choice is the same on every machine.
#include "choose.hpp"

#include <algorithm>
#include <cstring>

#include "../context/fit.hpp"

namespace codec {

namespace {

constexpr uint32_t kSplits = 5;  // numbers of raw bits that are tried

struct Leaf {
  uint64_t count;
  uint32_t symbol;
};

// Package-merge (Larmore and Hirschberg, 1990). Row j holds the leaves and the pairs of row j - 1, cheapest first, a leaf
// before a pair of the same cost; the 2 n - 2 cheapest of the last row are the code: each leaf in them adds a bit to its
// symbol, each pair stands for two items of the row before.
template <typename Weight>
void merge_packages(const Leaf* leaves, uint32_t n, uint32_t max_length, uint8_t* lengths) {
  constexpr Weight kEnd = ~Weight{0};  // behind the last: above every cost, so that the other list is taken from
  Weight leaf[kSymbols + 1], pair[kSymbols + 1], row[2 * kSymbols];
  uint8_t is_leaf[kLongest][2 * kSymbols];
  for (uint32_t i = 0; i < n; ++i) leaf[i] = row[i] = leaves[i].count;
  leaf[n] = kEnd;
  uint32_t size = n;
  for (uint32_t level = 1; level < max_length; ++level) {
    const uint32_t pairs = size / 2;
    for (uint32_t i = 0; i < pairs; ++i) pair[i] = row[2 * i] + row[2 * i + 1];
    pair[pairs] = kEnd;
    size = n + pairs;
    for (uint32_t i = 0, at = 0; i < size; ++i) {
      const Weight whole = leaf[at], both = pair[i - at];
      const bool take = whole <= both;
      row[i] = take ? whole : both;
      is_leaf[level][i] = take;
      at += take;
    }
  }
  uint32_t taken = 2 * n - 2;
  for (uint32_t level = max_length - 1; level > 0; --level) {
    uint32_t whole = 0;
    for (uint32_t i = 0; i < taken; ++i) whole += is_leaf[level][i];
    for (uint32_t i = 0; i < whole; ++i) ++lengths[leaves[i].symbol];
    taken = 2 * (taken - whole);
  }
  for (uint32_t i = 0; i < taken; ++i) ++lengths[leaves[i].symbol];
}

// The sum of counts; more than kMostKeys where it is more.
uint64_t sum_of(const uint64_t* counts, uint64_t n) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; ++i) {
    if (counts[i] > kMostKeys - sum) return kMostKeys + 1;
    sum += counts[i];
  }
  return sum;
}

// Whether eight counts are 0: most histograms hold little more than zeros.
bool empty(const uint64_t* counts) {
  uint64_t any = 0;
  for (uint32_t i = 0; i < 8; ++i) any |= counts[i];
  return any == 0;
}

}  // namespace

bool code_lengths(const uint64_t* counts, uint32_t symbols, uint32_t max_length, uint8_t* lengths) {
  Leaf leaves[kSymbols];
  const uint64_t total = sum_of(counts, symbols);
  uint32_t n = 0;
  memset(lengths, 0, symbols);
  if (total > kMostKeys) return false;
  for (uint32_t s = 0; s < symbols; ++s)
    if (counts[s]) leaves[n++] = {counts[s], s};
  if (n > 1u << max_length) return false;
  if (n < 2) return true;
  // Equal counts keep the order of their symbols, so that they give the same code everywhere.
  std::sort(leaves, leaves + n,
            [](const Leaf& a, const Leaf& b) { return a.count != b.count ? a.count < b.count : a.symbol < b.symbol; });
  // A row adds up to less than max_length times the total.
  if (total < (uint64_t{1} << 60))
    merge_packages<uint64_t>(leaves, n, max_length, lengths);
  else
    merge_packages<Wide>(leaves, n, max_length, lengths);
  return true;
}

namespace {

// Huffman codes as choose() tries them: the last one, and the best one in `chosen`.
struct Lengths {
  using Chosen = ChosenCode;
  uint32_t max_length;
  uint8_t lengths[kSymbols];

  // *bits: of all symbols; *table: of the table in the header.
  bool code(const uint64_t* counts, uint32_t symbols, Wide* bits, uint32_t* table) {
    if (!code_lengths(counts, symbols, max_length, lengths)) return false;
    *bits = 0;
    for (uint32_t s = 0; s < symbols; ++s) *bits += Wide{counts[s]} * lengths[s];
    *table = 4 * symbols;
    return true;
  }
  void keep(uint32_t symbols, Chosen& chosen) const { memcpy(chosen.lengths, lengths, symbols); }
};

// Tables of rANS, in the same way.
struct Counts {
  using Chosen = ChosenCounts;
  uint16_t shares[kSymbols];

  bool code(const uint64_t* counts, uint32_t symbols, Wide* bits, uint32_t* table) {
    uint32_t times[kSymbols];
    uint32_t scale = 0;  // so that the times add up to less than 2^32
    for (uint64_t sum = sum_of(counts, symbols); sum >> scale >= 1u << 31;) ++scale;
    for (uint32_t s = 0; s < symbols; ++s) times[s] = uint32_t(counts[s] >> scale) | (counts[s] != 0);
    normalise(times, symbols, kScale, shares);
    // Bits are counted in 2^-16, for each share rounded once.
    Wide sum = 0;
    uint64_t orders[8] = {};
    for (uint32_t s = 0; s < symbols; ++s) {
      if (counts[s]) sum += Wide{counts[s]} * ((kScale << 16) - uint32_t(log2_of(shares[s]) * 65536 + 0.5));
      const int32_t step = int32_t(shares[s]) - (s ? shares[s - 1] : 0);
      const uint32_t folded = step < 0 ? 2 * uint32_t(-step) - 1 : 2 * uint32_t(step);
      for (uint32_t k = 0; k < 8; ++k) orders[k] += 63 - 2 * uint32_t(__builtin_clz((folded >> k) + 1)) + k;
    }
    *bits = (sum + 65535) >> 16;
    *table = uint32_t(*std::min_element(orders, orders + 8)) + 11;
    return true;
  }
  void keep(uint32_t symbols, Chosen& chosen) const { memcpy(chosen.counts, shares, symbols * sizeof shares[0]); }
};

// Tries the smallest split at which 256 symbols reach from the least key to the most, and the four above it.
template <class Code>
bool choose(const KeyCounts& keys, uint32_t width, Kind kind, uint32_t bits, Code& code,
            typename Code::Chosen& chosen) {
  const uint32_t sign = kind == Kind::float_ ? 1 : 0;
  if (bits == 0) bits = key_bits(width, kind);
  memset(&chosen, 0, sizeof chosen);
  if (bits > key_bits(width, kind) || keys.shift >= bits || keys.size == 0 || keys.or_of_keys > ones(bits))
    return false;

  uint64_t from = 0, to = keys.size;  // the counts that are not 0 lie in [from, to)
  while (to - from >= 8 && empty(keys.counts + from)) from += 8;
  while (from < to && !keys.counts[from]) ++from;
  while (to - from >= 8 && empty(keys.counts + to - 8)) to -= 8;
  while (to > from && !keys.counts[to - 1]) --to;
  chosen.symbols = 1;
  if (from == to) {
    const uint64_t none = 1;
    Wide no_bits;
    uint32_t table;
    chosen.zeros = bits - 1;
    code.code(&none, 1, &no_bits, &table);
    code.keep(1, chosen);
    return true;
  }
  const uint64_t total = sum_of(keys.counts + from, to - from), limit = ones(bits - keys.shift);
  if (total > kMostKeys || keys.first > limit || to - 1 > limit - keys.first) return false;
  const uint64_t least = keys.first + from, most = keys.first + to - 1;
  uint64_t or_of_keys = keys.or_of_keys;
  if (keys.shift == 0) {
    or_of_keys = 0;
    for (uint64_t i = from; i < to; ++i)
      if (keys.counts[i]) or_of_keys |= keys.first + i;
  }
  // A key has its lowest 1 above these bits. If every key is 0, all bits but the one that a code must have.
  const uint32_t zeros = or_of_keys ? uint32_t(__builtin_ctzll(or_of_keys)) : bits - 1;

  // Below `zeros` keys hold nothing, below `keys.shift` they were not counted.
  uint32_t split = zeros > keys.shift ? zeros : keys.shift;
  while ((most >> (split - keys.shift)) - (least >> (split - keys.shift)) >= kSymbols) ++split;
  uint32_t end = split + kSplits;
  if (end > bits) end = bits;
  if (end > zeros + kField + 1 - sign) end = zeros + kField + 1 - sign;
  if (split >= end) return false;

  uint64_t counts[kSymbols] = {};
  uint64_t first = least >> (split - keys.shift);
  for (uint64_t i = from; i < to; ++i) counts[((keys.first + i) >> (split - keys.shift)) - first] += keys.counts[i];
  uint32_t symbols = uint32_t((most >> (split - keys.shift)) - first) + 1;
  Wide best = ~Wide{0};
  for (; split < end; ++split) {
    Wide size;
    uint32_t table;
    if (!code.code(counts, symbols, &size, &table)) return false;
    size += Wide{total} * (split - zeros + sign);
    if (size + table < best) {
      best = size + table;
      chosen.low = split - zeros;
      chosen.zeros = zeros;
      chosen.first = first;
      chosen.symbols = symbols;
      code.keep(symbols, chosen);
      chosen.bits_high = uint64_t(size >> 64);
      chosen.bits_low = uint64_t(size);
    }
    // Two symbols become one: those that differ in their lowest bit alone.
    const uint64_t above = first >> 1;
    uint64_t folded[kSymbols] = {};
    for (uint32_t s = 0; s < symbols; ++s) folded[((first + s) >> 1) - above] += counts[s];
    symbols = uint32_t(((first + symbols - 1) >> 1) - above) + 1;
    first = above;
    memcpy(counts, folded, sizeof counts);
  }
  return true;
}

}  // namespace

bool choose_code(const KeyCounts& keys, uint32_t width, Kind kind, uint32_t max_length, uint32_t bits,
                 ChosenCode& chosen) {
  Lengths code = {max_length, {}};
  return choose(keys, width, kind, bits, code, chosen);
}

bool choose_counts(const KeyCounts& keys, uint32_t width, Kind kind, uint32_t bits, ChosenCounts& chosen) {
  Counts code = {};
  return choose(keys, width, kind, bits, code, chosen);
}

}  // namespace codec
