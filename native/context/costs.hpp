// What choosing a model works with: bits that things cost, the bits of a mask, counts by class.
#pragma once
#include <cmath>
#include <cstring>

#include "fit.hpp"

namespace codec {

constexpr uint32_t kSums = kMostSums + 1;
constexpr uint64_t kSample = 1 << 15;  // stored elements that a choice between models looks at, about
constexpr double kLevelBits = 5;       // about what a probability takes in the head

inline double log_sum(uint64_t n) { return double(n) * log2_of(n); }

// Bits of n yes-or-no symbols of which `ones` are yes.
inline double binary_bits(uint64_t ones, uint64_t n) { return log_sum(n) - log_sum(ones) - log_sum(n - ones); }

// Bits of the counts of symbols in the head but for the last one, which the others tell.
template <class T>
double counts_bits(const T* counts, uint32_t symbols) {
  uint64_t sums[kCountOrders] = {}, before = 0;
  for (uint32_t s = 0; s + 1 < symbols; before = counts[s++]) {
    const uint64_t step = fold(int64_t(counts[s]) - int64_t(before));
    for (uint32_t k = 0; k < kCountOrders; ++k) sums[k] += golomb_bits(step, count_order(k, before));
  }
  uint64_t least = sums[0];
  for (uint64_t sum : sums) least = sum < least ? sum : least;
  return double(least) + 2;
}

// What a coarse mask of so many blocks takes in the head, about.
inline double coarse_side(uint64_t live, uint64_t blocks) { return binary_bits(live, blocks) * 1.04 + 24; }

// Bits of the classes of lines that are not dead, from how often each occurs, and of the counts that code them.
inline double classes_bits(const uint32_t* times) {
  uint64_t n = 0;
  uint32_t symbols = 0;
  double bits = 0;
  for (uint32_t c = 0; c < kSums; ++c) {
    if (!times[c]) continue;
    bits -= log_sum(times[c]);
    n += times[c];
    symbols = c + 1;
  }
  return symbols < 2 ? 0 : bits + log_sum(n) + 9 + 5.0 * symbols;
}

// Classes of n lines 2^halved times coarser, the least of them 0.
inline void coarsen(const uint8_t* from, uint64_t n, uint32_t halved, uint8_t* to) {
  uint8_t least = 255;
  for (uint64_t i = 0; i < n; ++i) {
    to[i] = uint8_t((from[i] + (1u << halved) / 2) >> halved);
    least = to[i] < least ? to[i] : least;
  }
  for (uint64_t i = 0; i < n; ++i) to[i] = uint8_t(to[i] - least);
}

// What it takes to say which of n lines are dead.
inline double dead_bits(uint64_t live, uint64_t n) { return binary_bits(live, n) + 20; }

// Every so many rows of a segment tell enough to choose by.
inline uint32_t sample_step(const Flat& f) {
  return uint32_t(f.count / kSample + 1 < f.rows / 64 ? f.count / kSample + 1 : 1);
}

// The columns of a row with a stored element.
template <class Use>
void each_bit(const Flat& f, uint64_t row, Use&& use) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(f.mask);
  uint64_t at = row * f.cols;
  for (uint32_t left = 0; left < f.cols; left += 64, at += 64) {
    uint64_t word;
    memcpy(&word, bytes + at / 8, 8);
    if (at % 8) word = word >> at % 8 | uint64_t(bytes[at / 8 + 8]) << (64 - at % 8);
    if (f.cols - left < 64) word &= (uint64_t{1} << (f.cols - left)) - 1;
    for (; word; word &= word - 1) use(left + uint32_t(__builtin_ctzll(word)));
  }
}

// Classes by density: each row and column by the logarithm of its odds, in steps.
inline void classify(const uint32_t* ones, const uint32_t* of, uint64_t n, double step, uint8_t* classes) {
  double least = 1e9;
  for (uint64_t i = 0; i < n; ++i)
    if (of[i]) {
      const double odds = log2_of(2 * uint64_t{ones[i]} + 1) - log2_of(2 * uint64_t(of[i] - ones[i]) + 1);
      if (odds < least) least = odds;
    }
  uint64_t total_ones = 0, total = 0;
  for (uint64_t i = 0; i < n; ++i) total_ones += ones[i], total += of[i];
  const double middle = log2_of(2 * total_ones + 1) - log2_of(2 * (total - total_ones) + 1);
  for (uint64_t i = 0; i < n; ++i) {
    double odds = log2_of(2 * uint64_t{ones[i]} + 1) - log2_of(2 * uint64_t(of[i] - ones[i]) + 1);
    if (!of[i]) odds = middle > least ? middle : least;
    const double found = floor((odds - least) / step + 0.5);
    classes[i] = uint8_t(found > kMostSums - 1 ? kMostSums - 1 : found);
  }
}

inline bool is_dead(const Lines& lines, uint64_t i) { return lines.dead && !lines.live[i]; }

// How often each class occurs among n lines, but for dead ones.
inline void count_classes(const Lines& lines, const uint8_t* classes, uint64_t n, uint32_t* times) {
  memset(times, 0, 4 * kSums);
  for (uint64_t i = 0; i < n; ++i) times[classes[i]] += !is_dead(lines, i);
}

inline uint32_t largest(const uint32_t* times) {
  uint32_t most = 0;
  for (uint32_t c = 0; c < kSums; ++c)
    if (times[c]) most = c;
  return most;
}

// How many of n and ones of n there are by class of row and class of column.
struct Joint {
  uint32_t ones[kSums][kSums], of[kSums][kSums];
};

struct Work {
  uint32_t *row_ones, *col_ones, *row_of, *col_of;
  uint64_t *row_sums, *col_sums;
  uint8_t *rows, *cols, *other_rows, *other_cols, *signed_rows, *signed_cols, *line, *chances, *live, *symbols;
  Joint joint;
  uint32_t histogram[kSums][256];
  uint32_t by_table[kMostTables][256];
  uint64_t ones[kMostChances], of[kMostChances];
  uint64_t fours[16];  // groups of four columns by their bits
};

}  // namespace codec
