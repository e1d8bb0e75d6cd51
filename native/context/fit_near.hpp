// Choosing neighbours: where elements before one in its row tell whether it is stored, as in images and in kernels.
#pragma once
#include <initializer_list>

#include "costs.hpp"

namespace codec {

struct NearFitter {
  const Flat& f;
  ContextModel& m;
  Work& w;

  static constexpr uint32_t kFarthest = 64, kCandidates = 5;
  static constexpr uint64_t kLooked = 1 << 15;  // elements that a choice looks at, about

  struct Choice {
    uint32_t count;
    uint32_t near[kMostNear];
  };

  uint32_t step() const { return uint32_t(f.size() / kLooked + 1); }

  // A row as bytes of 0 and 1.
  void unpack(uint64_t row) {
    memset(w.line, 0, f.cols);
    each_bit(f, row, [&](uint32_t c) { w.line[c] = 1; });
  }

  // How unlike what their columns tell alone elements are stored together at distances from `first` to `last`.
  void compare(uint32_t first, uint32_t last, double* score) {
    uint64_t together[kFarthest + 1] = {};
    uint64_t looked = 0;
    for (uint64_t r = 0; r < f.rows; r += step(), ++looked) {
      unpack(r);
      for (uint32_t d = first; d <= last; ++d) {
        uint32_t count = 0;
        for (uint32_t c = d; c < f.cols; ++c) count += w.line[c] & w.line[c - d];
        together[d] += count;
      }
    }
    for (uint32_t d = first; d <= last; ++d) {
      double expected = 0;
      for (uint32_t c = d; c < f.cols; ++c) expected += double(w.col_ones[c]) * w.col_ones[c - d];
      expected *= double(looked) / (double(f.rows) * f.rows);
      const double off = double(together[d]) - expected;
      score[d] = off > 0.1 * expected ? off * off / (expected + 1) : 0;
    }
  }

  // The distances that tell most, the first the most; none where the nearest elements are not alike.
  uint32_t candidates(uint32_t group, uint32_t* found) {
    constexpr double kNoChance = 100;  // ten deviations
    double score[kFarthest + 1] = {};
    compare(1, 1, score);
    if (score[1] < kNoChance) return 0;
    const uint32_t most = group - 1 < kFarthest ? group - 1 : kFarthest;
    compare(2, most, score);
    uint32_t count = 0;
    for (; count < kCandidates; ++count) {
      uint32_t best = 0;
      for (uint32_t d = 1; d <= most; ++d)
        if (score[d] > score[best]) best = d;
      if (score[best] < kNoChance) break;
      found[count] = best;
      score[best] = 0;
    }
    return count;
  }

  // Bits of the mask with classes of rows and columns, and neighbours.
  double bits_of(const uint8_t* rows, const uint8_t* cols, uint32_t sums, uint32_t group, const Choice& choice) {
    // By twice the number of a probability, and the bit; two tables, so that equal numbers do not wait for each other.
    uint32_t times[2][256] = {};
    // Pointers of their own: bytes may be anything's, also the pointers in w.
    const uint8_t* __restrict line = w.line;
    uint8_t* __restrict chance = w.chances;
    for (uint64_t r = 0; r < f.rows; r += step()) {
      unpack(r);
      const uint8_t own = rows[r];
      for (uint32_t c = 0; c < f.cols; ++c) chance[c] = uint8_t(own + cols[c]);
      for (uint32_t i = 0; i < choice.count; ++i) {
        const uint32_t d = choice.near[i];
        const uint8_t more = uint8_t(sums << i);
        for (uint32_t from = 0; from < f.cols; from += group)
          for (uint32_t c = from + d; c < from + group; ++c) chance[c] = uint8_t(chance[c] + (line[c - d] ? more : 0));
      }
      for (uint32_t c = 0; c < f.cols; ++c) chance[c] = uint8_t(2 * chance[c] + line[c]);
      if (const uint8_t* __restrict live = LiveLines(m, 0, f.cols, w.live).of(uint32_t(r)))
        for (uint32_t c = 0; c < f.cols; ++c) chance[c] |= uint8_t(~live[c]);
      for (uint32_t c = 0; c < f.cols; ++c) ++times[c % 2][chance[c]];
    }
    double bits = 0;
    for (uint32_t i = 0; i < sums << choice.count; ++i) {
      const uint64_t zeros = times[0][2 * i] + times[1][2 * i], ones = times[0][2 * i + 1] + times[1][2 * i + 1];
      bits += binary_bits(ones, zeros + ones);
    }
    return bits * step() + kLevelBits * (sums << choice.count);
  }

  // Classes of w.rows and w.cols, so many times coarser, in w.other_rows and w.other_cols. Returns their sums.
  uint32_t coarser(uint32_t halved, double* side) {
    uint32_t times[kSums], sums = 1;
    *side = 0;
    const struct {
      const uint8_t* from;
      uint8_t* to;
      uint64_t n;
      const Lines& lines;
    } both[2] = {{w.rows, w.other_rows, f.rows, m.rows}, {w.cols, w.other_cols, f.cols, m.cols}};
    for (const auto& one : both) {
      coarsen(one.from, one.n, halved, one.to);
      count_classes(one.lines, one.to, one.n, times);
      *side += classes_bits(times);
      sums += largest(times);
    }
    return sums;
  }

  // Bits of the mask with the best neighbours, which are in the model then, with their classes in w.rows and w.cols;
  // `least` where they do not pay.
  double fit(double least) {
    uint32_t group = f.cols <= kMostColumns ? f.cols : 0;
    for (uint32_t cells : {9u, 25u, 49u})
      if (!group && f.cols <= kPanel && f.cols % cells == 0) group = cells;
    if (group < 2 || f.count < 256 || f.rows < step()) return least;
    uint32_t distances[kCandidates];
    const uint32_t count = candidates(group, distances);
    if (!count) return least;
    // The distances by classes that leave room for them; then the classes by the distances.
    double best = 0.98 * least, side;
    uint32_t halved = 0, chosen = ~0u;
    while (coarser(halved, &side) > 7) ++halved;
    Choice choice = {}, found = {};
    uint32_t sums = coarser(halved, &side);
    for (double before = bits_of(w.other_rows, w.other_cols, sums, group, choice) + side; choice.count < kMostNear;) {
      Choice better = choice;
      double tried = 0.995 * before;
      for (uint32_t i = 0; i < count; ++i) {
        const Choice more = with(choice, distances[i]);
        if (more.count == choice.count) continue;
        const double bits = bits_of(w.other_rows, w.other_cols, sums, group, more) + side;
        if (bits < tried) tried = bits, better = more;
      }
      if (better.count == choice.count) break;
      choice = better;
      before = tried;
      if (before < best) best = before, found = choice, chosen = halved;
    }
    for (uint32_t h = 0; h < 7 && found.count; ++h) {
      sums = coarser(h, &side);
      if (h == halved || sums << found.count > 63) continue;
      const double bits = bits_of(w.other_rows, w.other_cols, sums, group, found) + side;
      if (bits < best) best = bits, chosen = h;
    }
    if (chosen == ~0u) return least;
    coarser(chosen, &side);
    memcpy(w.rows, w.other_rows, f.rows);
    memcpy(w.cols, w.other_cols, f.cols);
    m.group = group;
    m.near_count = found.count;
    for (uint32_t i = 0; i < found.count; ++i) m.near[i] = found.near[i];
    return best;
  }

  // One more distance, in ascending order; none where it is there already.
  static Choice with(const Choice& choice, uint32_t distance) {
    Choice more = choice;
    uint32_t at = 0;
    while (at < choice.count && choice.near[at] < distance) ++at;
    if (at < choice.count && choice.near[at] == distance) return choice;
    for (uint32_t i = choice.count; i > at; --i) more.near[i] = choice.near[i - 1];
    more.near[at] = distance;
    ++more.count;
    return more;
  }
};

}  // namespace codec
