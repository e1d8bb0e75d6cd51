// Choosing classes where few elements are stored: each pair of a class of rows and one of columns has a probability of
// its own then, which a step of density does not tell.
#pragma once
#include "costs.hpp"

namespace codec {

struct PairFitter {
  const Flat& f;
  ContextModel& m;
  Work& w;

  // Neighbouring classes by density that are one class, of rows or of columns.
  struct Groups {
    uint32_t count = 1;
    uint8_t of[kSums] = {};
  };

  // How many lines a class has, and of each group of the other side how many elements there are and are stored.
  struct Counts {
    uint32_t lines[kSums];
    uint64_t ones[kSums][kSums], of[kSums][kSums];
  };

  // Bits of one class that takes those from `begin` to `end`: of its symbol and of the mask.
  static double bits_of(const Counts& counts, uint32_t begin, uint32_t end, uint32_t others) {
    uint64_t lines = 0;
    for (uint32_t c = begin; c < end; ++c) lines += counts.lines[c];
    double bits = 5 - log_sum(lines);
    for (uint32_t g = 0; g < others; ++g) {
      uint64_t ones = 0, of = 0;
      for (uint32_t c = begin; c < end; ++c) ones += counts.ones[c][g], of += counts.of[c][g];
      bits += binary_bits(ones, of) + kLevelBits;
    }
    return bits;
  }

  // The groups that take the fewest bits, given those of the other side: by how the classes up to each one are grouped
  // best.
  static double group(const Counts& counts, uint32_t classes, uint32_t others, Groups& groups) {
    double best[kSums + 1] = {};
    uint32_t begin[kSums + 1] = {}, all = 0;
    for (uint32_t end = 1; end <= classes; ++end) {
      best[end] = 1e300;
      all += counts.lines[end - 1];
      for (uint32_t from = 0; from < end; ++from) {
        const double bits = best[from] + bits_of(counts, from, end, others);
        if (bits < best[end]) best[end] = bits, begin[end] = from;
      }
    }
    groups.count = 0;
    for (uint32_t end = classes; end; end = begin[end]) {
      for (uint32_t c = begin[end]; c < end; ++c) groups.of[c] = uint8_t(groups.count);
      ++groups.count;
    }
    for (uint32_t c = 0; c < classes; ++c) groups.of[c] = uint8_t(groups.count - 1 - groups.of[c]);
    return best[classes] + log_sum(all);
  }

  void count(bool by_row, const uint32_t* lines, const Groups& others, Counts& counts) const {
    memset(&counts, 0, sizeof counts);
    memcpy(counts.lines, lines, sizeof counts.lines);
    for (uint32_t a = 0; a < kSums; ++a)
      for (uint32_t b = 0; b < kSums; ++b) {
        const uint32_t own = by_row ? a : b, group = others.of[by_row ? b : a];
        counts.ones[own][group] += w.joint.ones[a][b];
        counts.of[own][group] += w.joint.of[a][b];
      }
  }

  // Bits of the mask with classes for pairs, which are in w.rows and w.cols then; `least` where they do not pay.
  // The classes by density of w.other_rows and w.other_cols, and what w.joint counts by them, are given.
  double fit(double least) {
    uint32_t row_lines[kSums], col_lines[kSums];
    count_classes(m.rows, w.other_rows, f.rows, row_lines);
    count_classes(m.cols, w.other_cols, f.cols, col_lines);
    const uint32_t row_classes = largest(row_lines) + 1, col_classes = largest(col_lines) + 1;
    Groups rows, cols;
    Counts counts;
    double bits = 1e300;
    for (uint32_t round = 0; round < 2; ++round) {
      count(false, col_lines, rows, counts);
      group(counts, col_classes, rows.count, cols);
      count(true, row_lines, cols, counts);
      bits = group(counts, row_classes, cols.count, rows);
    }
    uint32_t times[kSums] = {};
    for (uint32_t c = 0; c < col_classes; ++c) times[cols.of[c]] += col_lines[c];
    bits += classes_bits(times);
    if (bits >= least || rows.count * cols.count > kMostSums) return least;
    for (uint64_t r = 0; r < f.rows; ++r) w.rows[r] = uint8_t(rows.of[w.other_rows[r]] * cols.count);
    for (uint64_t c = 0; c < f.cols; ++c) w.cols[c] = cols.of[w.other_cols[c]];
    return bits;
  }
};

}  // namespace codec
