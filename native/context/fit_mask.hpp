// Choosing what codes the mask: classes of rows and columns by density, coarse masks, groups, probabilities.
#pragma once
#include <initializer_list>

#include "costs.hpp"

namespace codec {

struct MaskFitter {
  const Flat& f;
  ContextModel& m;
  Work& w;

  void count_lines() {
    memset(w.row_ones, 0, 4 * uint64_t{f.rows});
    memset(w.col_ones, 0, 4 * uint64_t{f.cols});
    for (uint64_t r = 0; r < f.rows; ++r) {
      uint32_t count = 0;
      each_bit(f, r, [&](uint32_t c) { ++w.col_ones[c], ++count; });
      w.row_ones[r] = count;
    }
    if (!m.limited()) {
      for (uint64_t r = 0; r < f.rows; ++r) w.row_of[r] = f.cols;
      for (uint64_t c = 0; c < f.cols; ++c) w.col_of[c] = f.rows;
      return;
    }
    memset(w.row_of, 0, 4 * uint64_t{f.rows});
    memset(w.col_of, 0, 4 * uint64_t{f.cols});
    LiveLines lines(m, 0, f.cols, w.live);
    for (uint64_t r = 0; r < f.rows; ++r) {
      const uint8_t* live = lines.of(uint32_t(r));
      uint32_t count = 0;
      for (uint64_t c = 0; c < f.cols; ++c) count += live[c] & 1u, w.col_of[c] += live[c] & 1u;
      w.row_of[r] = count;
    }
  }

  void count_joint(const uint8_t* rows, const uint8_t* cols) {
    memset(&w.joint, 0, sizeof w.joint);
    const uint32_t step = m.limited() ? 1 : sample_step(f);
    LiveLines lines(m, 0, f.cols, w.live);
    for (uint64_t r = 0; r < f.rows; r += step) {
      uint32_t* ones = w.joint.ones[rows[r]];
      each_bit(f, r, [&](uint32_t c) { ++ones[cols[c]]; });
      if (!m.limited()) continue;
      const uint8_t* live = lines.of(uint32_t(r));
      uint32_t* of = w.joint.of[rows[r]];
      for (uint64_t c = 0; c < f.cols; ++c) of[cols[c]] += live[c] & 1u;
    }
    if (m.limited()) return;
    uint32_t row_times[kSums], col_times[kSums];
    memset(row_times, 0, sizeof row_times);
    for (uint64_t r = 0; r < f.rows; r += step) row_times[rows[r]] += step;
    count_classes(m.cols, cols, f.cols, col_times);
    for (uint32_t a = 0; a < kSums; ++a)
      for (uint32_t b = 0; b < kSums; ++b) {
        w.joint.of[a][b] = row_times[a] * col_times[b];
        w.joint.ones[a][b] *= step;
      }
  }

  // Bits of the mask with its classes, with classes of `halved` times the step, of rows or columns or both.
  double mask_bits(uint32_t halved, bool by_row, bool by_col) {
    uint64_t ones[2 * kSums] = {}, of[2 * kSums] = {};
    uint32_t row_times[kSums] = {}, col_times[kSums] = {};
    const uint32_t up = (1u << halved) / 2;
    for (uint32_t a = 0; a < kSums; ++a)
      for (uint32_t b = 0; b < kSums; ++b) {
        if (!w.joint.of[a][b]) continue;
        const uint32_t s = (by_row ? (a + up) >> halved : 0) + (by_col ? (b + up) >> halved : 0);
        ones[s] += w.joint.ones[a][b];
        of[s] += w.joint.of[a][b];
      }
    double bits = 0;
    for (uint32_t s = 0; s < 2 * kSums; ++s)
      if (of[s]) {
        if (s >= kMostSums) return 1e300;
        bits += binary_bits(ones[s], of[s]) + kLevelBits;
      }
    if (by_row) {
      for (uint64_t r = 0; r < f.rows; ++r) row_times[(w.rows[r] + up) >> halved] += !is_dead(m.rows, r);
      bits += classes_bits(row_times);
    }
    if (by_col) {
      for (uint64_t c = 0; c < f.cols; ++c) col_times[(w.cols[c] + up) >> halved] += !is_dead(m.cols, c);
      bits += classes_bits(col_times);
    }
    return bits;
  }

  // Fine classes by density, and what there is of each pair of them in w.joint.
  void classify_lines(uint8_t* rows, uint8_t* cols) {
    constexpr double kStep = 0.25;
    classify(w.row_ones, w.row_of, f.rows, kStep, rows);
    classify(w.col_ones, w.col_of, f.cols, kStep, cols);
    count_joint(rows, cols);
  }

  // Classes of rows and columns by density in w.rows and w.cols, all 0 where they do not pay; returns the mask's bits.
  double fit_density(double* plain) {
    count_lines();
    uint64_t all = 0;
    for (uint64_t r = 0; r < f.rows; ++r) all += w.row_of[r];
    *plain = binary_bits(f.count, all) + kLevelBits;
    memset(w.rows, 0, f.rows);
    memset(w.cols, 0, f.cols);
    if (*plain < 64 || f.size() < 64) return *plain;
    classify_lines(w.rows, w.cols);
    double best = *plain;
    uint32_t halved = 0;
    bool by_row = false, by_col = false;
    for (uint32_t h = 0; h < 4; ++h)
      for (uint32_t mode = 1; mode < 4; ++mode) {
        if ((mode & 1 && f.rows == 1) || (mode & 2 && f.cols == 1)) continue;
        const double bits = mask_bits(h, mode & 1, mode & 2);
        // A line or two that differ by chance are not worth classes.
        if (bits < best && bits < 0.999 * *plain) best = bits, halved = h, by_row = mode & 1, by_col = mode & 2;
      }
    by_row ? coarsen(w.rows, f.rows, halved, w.rows) : void(memset(w.rows, 0, f.rows));
    by_col ? coarsen(w.cols, f.cols, halved, w.cols) : void(memset(w.cols, 0, f.cols));
    return best;
  }

  // Bits of the mask as groups of four, each by those before it, without classes.
  double fours_bits() {
    if (f.cols % 4 || f.cols > kPanel || m.limited()) return 1e300;
    uint64_t* times = w.fours;
    memset(times, 0, sizeof w.fours);
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(f.mask);
    for (uint64_t i = 0; i < f.size() / 8; ++i) ++times[bytes[i] & 15], ++times[bytes[i] >> 4];
    if (f.size() % 8) ++times[bytes[f.size() / 8] & 15];
    double bits = log_sum(f.size() / 4);
    for (uint64_t n : w.fours) bits -= log_sum(n);
    return bits + 40 * kLevelBits + 2.0 * f.cols;
  }

  // -- coarse masks --------------------------------------------------------------------------------------------------

  // Bits of a coarse mask and the mask within it; marks its live blocks.
  double coarse_bits(Coarse& coarse, uint32_t rows, uint32_t cols) {
    coarse.rows = rows;
    coarse.cols = cols;
    coarse.across = (f.cols + cols - 1) / cols;
    coarse.count = (f.rows + rows - 1) / rows * coarse.across;
    memset(coarse.live, 0, coarse.count / 8 + 1);
    for (uint64_t r = 0; r < f.rows; ++r) {
      const uint64_t base = r / rows * coarse.across;
      uint32_t end = 0, at = 0;
      each_bit(f, r, [&](uint32_t c) {
        if (c < end) return;
        at = c / cols;
        end = (at + 1) * cols;
        coarse.live[(base + at) / 8] |= uint8_t(1u << (base + at) % 8);
      });
    }
    uint64_t live = 0, inside = 0;
    for (uint64_t i = 0; i < coarse.count; ++i) {
      if (!(coarse.live[i / 8] >> i % 8 & 1)) continue;
      ++live;
      const uint64_t row = i / coarse.across * rows, col = i % coarse.across * cols;
      const uint64_t tall = f.rows - row < rows ? f.rows - row : rows;
      inside += tall * (f.cols - col < cols ? f.cols - col : cols);
    }
    return coarse_side(live, coarse.count) + binary_bits(f.count, inside) + kLevelBits;
  }

  static void mark_dead(Lines& lines, const uint32_t* ones, uint64_t n) {
    lines.dead = true;
    for (uint64_t i = 0; i < n; ++i) lines.live[i] = ones[i] ? 0xFF : 0;
  }

  // Structured zeros: blocks, or rows and columns, that are dead as a whole. Bits of the mask with them and without
  // classes, where there are any. `least` and `plain`: its bits without them, with classes and without.
  double fit_coarse(double least, double plain) {
    m.coarse_count = 0;
    if (f.count * 50 > f.size() * 49 || f.size() < 256) return least;
    // Shapes by pairs of rows and columns: where a structure is there, neighbours are alike.
    uint32_t best_rows = 0, best_cols = 0;
    auto attempt = [&](uint64_t rows, uint64_t cols) {
      if (rows > f.rows || cols > f.cols || rows * cols < 4) return;
      const double bits = coarse_bits(m.coarse[0], uint32_t(rows), uint32_t(cols));
      if (bits < 0.995 * least) least = bits, best_rows = uint32_t(rows), best_cols = uint32_t(cols);
    };
    uint64_t dead_rows = 0, dead_cols = 0, same_row = 0, same_col = 0;
    for (uint64_t r = 0; r < f.rows; ++r) dead_rows += !w.row_ones[r];
    for (uint64_t c = 0; c < f.cols; ++c) dead_cols += !w.col_ones[c];
    count_neighbours(&same_row, &same_col);
    // Of independent zeros a share of about the density of the ones has a one beside it, or below it.
    const uint64_t chance = 2 * f.count * f.count / f.size() / 2;
    const bool down = same_row * 4 > chance * 5, along = same_col * 4 > chance * 5;
    if (down || along)
      for (uint32_t rows = 1; rows <= (down ? 64u : 1u); rows *= 2)
        for (uint32_t cols = 1; cols <= (along ? 64u : 1u); cols *= 2) attempt(rows, cols);
    for (uint32_t cols : {9u, 25u, 49u})
      if (along && f.cols % cols == 0) attempt(1, cols);
    if (best_rows) {
      coarse_bits(m.coarse[m.coarse_count++], best_rows, best_cols);
      return least;
    }
    // Dead rows, dead columns, or both.
    uint32_t lines = 0;
    for (uint32_t which = 1; which < 4; ++which) {
      if ((which & 1 && !dead_rows) || (which & 2 && !dead_cols)) continue;
      const uint64_t rows = which & 1 ? f.rows - dead_rows : f.rows, cols = which & 2 ? f.cols - dead_cols : f.cols;
      double bits = binary_bits(f.count, rows * cols) + kLevelBits;
      if (which & 1) bits += dead_bits(rows, f.rows);
      if (which & 2) bits += dead_bits(cols, f.cols);
      if (bits < plain) plain = bits, lines = which;
    }
    if (lines & 1) mark_dead(m.rows, w.row_ones, f.rows);
    if (lines & 2) mark_dead(m.cols, w.col_ones, f.cols);
    return plain;
  }

  // How many ones have one below, and one beside them.
  void count_neighbours(uint64_t* below, uint64_t* beside) {
    uint64_t down = 0, along = 0;
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(f.mask);
    auto word_at = [&](uint64_t at) {
      uint64_t word;
      memcpy(&word, bytes + at / 8, 8);
      return at % 8 ? word >> at % 8 | uint64_t(bytes[at / 8 + 8]) << (64 - at % 8) : word;
    };
    for (uint64_t at = 0; at + 64 <= f.size(); at += 64) {
      const uint64_t word = word_at(at);
      along += uint64_t(__builtin_popcountll(word & word >> 1));
      if (at + f.cols + 64 <= f.size()) down += uint64_t(__builtin_popcountll(word & word_at(at + f.cols)));
    }
    *below = down;
    *beside = along;
  }

  // The probabilities, exactly as the coder asks for them.
  void count_chances() {
    memset(w.ones, 0, sizeof w.ones);
    memset(w.of, 0, sizeof w.of);
    if (!m.limited() && !m.near_count) {
      uint32_t row_times[kSums], col_times[kSums];
      count_classes(m.rows, m.rows.classes, f.rows, row_times);
      count_classes(m.cols, m.cols.classes, f.cols, col_times);
      for (uint32_t a = 0; a < kSums; ++a)
        for (uint32_t b = 0; b < kSums && row_times[a]; ++b) w.of[a + b] += uint64_t{row_times[a]} * col_times[b];
      if (m.sums == 1) {
        w.ones[0] = f.count;
      } else if (!m.cols.coded()) {
        for (uint64_t r = 0; r < f.rows; ++r) w.ones[m.rows.classes[r]] += w.row_ones[r];
      } else if (!m.rows.coded()) {
        for (uint64_t c = 0; c < f.cols; ++c) w.ones[m.cols.classes[c]] += w.col_ones[c];
      } else {
        for (uint64_t r = 0; r < f.rows; ++r) {
          uint64_t* ones = w.ones + m.rows.classes[r];
          each_bit(f, r, [&](uint32_t c) { ++ones[m.cols.classes[c]]; });
        }
      }
      return;
    }
    if (!m.limited() && m.group == 4 && m.sums == 4) {
      for (uint32_t group = 0; group < 16; ++group)
        for (uint32_t k = 0; k < 4; ++k) {
          uint32_t chance = k;
          for (uint32_t i = 0; i < m.near_count && m.near[i] <= k; ++i)
            chance += (group >> (k - m.near[i]) & 1) * (m.sums << i);
          w.of[chance] += w.fours[group];
          w.ones[chance] += w.fours[group] * (group >> k & 1);
        }
      return;
    }
    LiveLines lines(m, 0, f.cols, w.live);
    for (uint64_t r = 0; r < f.rows; ++r) {
      class_line(m, uint32_t(r), 0, f.cols, lines.of(uint32_t(r)), w.line);
      const uint8_t* bytes = reinterpret_cast<const uint8_t*>(f.mask);
      const uint64_t base = r * f.cols;
      for (uint32_t c = 0; c < f.cols; ++c) {
        if (!w.line[c]) continue;
        uint32_t chance = w.line[c] - 1u;
        for (uint32_t i = 0; i < m.near_count; ++i)
          if (c % m.group >= m.near[i]) {
            const uint64_t at = base + c - m.near[i];
            chance += (bytes[at / 8] >> at % 8 & 1u) * (m.sums << i);
          }
        ++w.of[chance];
        w.ones[chance] += bytes[(base + c) / 8] >> (base + c) % 8 & 1;
      }
    }
  }

  double choose_levels() {
    count_chances();
    double bits = 0;
    uint32_t last = 160;
    for (uint32_t i = 0; i < m.chances(); ++i) {
      uint32_t level = last;
      if (w.of[i]) {
        level = level_of(w.ones[i], w.of[i]);
        const uint32_t chance = chance_at(level);
        bits += double(w.ones[i]) * (kMaskBits - log2_of(chance)) +
                double(w.of[i] - w.ones[i]) * (kMaskBits - log2_of((1u << kMaskBits) - chance));
      }
      m.level[i] = uint16_t(level);
      last = level;
    }
    return bits + kLevelBits * m.chances();
  }

  // The level nearest to ones / of; 0 and 1 only where nothing else occurs.
  static uint32_t level_of(uint64_t ones, uint64_t of) {
    if (!ones) return 0;
    if (ones == of) return kLevels - 1;
    const uint64_t wanted = (ones << 20) / of;
    uint32_t low = 1, high = kLevels - 2;
    while (low < high) {
      const uint32_t middle = (low + high) / 2;
      if (uint64_t{chance_at(middle) + chance_at(middle + 1)} << (20 - kMaskBits) >= 2 * wanted)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }
};

}  // namespace codec
