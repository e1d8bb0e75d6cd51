// Choosing classes of columns by the sign of their values: in embeddings, and wherever columns are features, most values
// of a column have the same one.
#pragma once
#include "costs.hpp"

namespace codec {

struct SignFitter {
  const Flat& f;
  ContextModel& m;
  Work& w;

  static constexpr uint32_t kMostParts = 4, kShares = 32, kSeen = 16;

  // Values of each column of every `step`-th row, and how many of them have their top bit set, in w.col_of and
  // w.col_sums.
  uint64_t count(uint64_t step) {
    memset(w.col_of, 0, 4 * uint64_t{f.cols});
    memset(w.col_sums, 0, 8 * uint64_t{f.cols});
    const uint8_t* top = f.values + f.width - 1;
    uint64_t seen = 0;
    for (uint64_t r = 0; r < f.rows; ++r) {
      if (r % step == 0) {
        const uint8_t* own = top;
        each_bit(f, r, [&](uint32_t c) {
          ++w.col_of[c];
          w.col_sums[c] += *own >> 7;
          own += f.width;
        });
        seen += w.row_ones[r];
      }
      top += uint64_t{w.row_ones[r]} * f.width;
    }
    return seen;
  }

  // Bits that the signs take less where columns tell them, about, of `bits` of all; 0 where it is too little to look.
  double promised(double bits) {
    if (f.count < 512 || f.cols < 2) return 0;
    const uint64_t step = f.count / (uint64_t{kSeen} * f.cols) + 1, seen = count(step < f.rows ? step : 1);
    double told = double(seen);
    // Of few values, chance tells half a bit for each column.
    for (uint32_t c = 0; c < f.cols; ++c)
      if (w.col_of[c]) told -= binary_bits(w.col_sums[c], w.col_of[c]) + 0.72;
    const double gain = seen ? told / double(seen) * double(f.count) : 0;
    return gain > 500 && gain > 0.002 * bits ? gain : 0;
  }

  // Parts of the columns by the share of set top bits, at most so many, by which the signs and the parts take the fewest
  // bits; fills `parts` and returns how many.
  uint32_t divide(uint32_t most, uint8_t* parts) {
    count(1);
    uint64_t tops[kShares] = {}, of[kShares] = {}, columns[kShares] = {};
    for (uint32_t c = 0; c < f.cols; ++c) {
      parts[c] = uint8_t(w.col_ones[c] ? w.col_sums[c] * (kShares - 1) / w.col_ones[c] : kShares / 2);
      tops[parts[c]] += w.col_sums[c];
      of[parts[c]] += w.col_ones[c];
      ++columns[parts[c]];
    }
    // best[n][end]: bits of the shares up to `end` in n parts, the last of which begins at from[n][end].
    double best[kMostParts + 1][kShares + 1];
    uint32_t from[kMostParts + 1][kShares + 1] = {};
    for (uint32_t end = 0; end <= kShares; ++end) best[0][end] = end ? 1e300 : 0;
    if (most > kMostParts) most = kMostParts;
    uint32_t number = 1;
    for (uint32_t n = 1; n <= most; ++n) {
      for (uint32_t end = 0; end <= kShares; ++end) {
        best[n][end] = 1e300;
        uint64_t all_tops = 0, all = 0, all_columns = 0;
        for (uint32_t begin = end; begin-- > 0;) {
          all_tops += tops[begin], all += of[begin], all_columns += columns[begin];
          // About what a table and its levels take.
          const double bits = best[n - 1][begin] + binary_bits(all_tops, all) - log_sum(all_columns) + 300;
          if (bits < best[n][end]) best[n][end] = bits, from[n][end] = begin;
        }
      }
      if (best[n][kShares] < best[number][kShares]) number = n;
    }
    uint8_t part_of[kShares];
    for (uint32_t n = number, end = kShares; n > 0; end = from[n--][end])
      for (uint32_t share = from[n][end]; share < end; ++share) part_of[share] = uint8_t(n - 1);
    for (uint32_t c = 0; c < f.cols; ++c) parts[c] = part_of[parts[c]];
    return number;
  }

  // Bits of the mask with such classes, without the bits of these.
  double mask_bits(const uint8_t* rows, const uint8_t* cols) {
    const uint32_t step = sample_step(f);
    uint32_t lines[kSums];
    uint64_t ones[2 * kSums] = {}, of[2 * kSums] = {};
    count_classes(m.cols, cols, f.cols, lines);
    for (uint64_t r = 0; r < f.rows; r += step) {
      if (is_dead(m.rows, r)) continue;
      for (uint32_t b = 0; b < kSums; ++b) of[rows[r] + b] += lines[b];
      each_bit(f, r, [&](uint32_t c) { ++ones[rows[r] + cols[c]]; });
    }
    double bits = 0;
    for (uint32_t s = 0; s < 2 * kSums; ++s) bits += binary_bits(ones[s], of[s]);
    return bits * step;
  }

  // Classes half as fine.
  static void halve(const uint8_t* from, uint64_t n, uint8_t* to) {
    for (uint64_t i = 0; i < n; ++i) to[i] = uint8_t(from[i] / 2);
  }
};

}  // namespace codec
