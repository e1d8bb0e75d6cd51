// The model of a segment in layout context: which of those that it can have makes the segment smallest. Costs are
// counted in bits from histograms. Compiled once, and without a fused multiply-add, so that every set chooses alike.
#include <algorithm>

#include "fit_mask.hpp"
#include "fit_near.hpp"
#include "fit_pairs.hpp"
#include "fit_signs.hpp"
#include "fit_values.hpp"

namespace codec {

double log2_of(uint64_t n) {
  // log2 of 1 to 2 in steps of 1/2048, rounded so that every C library gives the same; between them straight lines.
  struct Table {
    double at[2050];
    Table() {
      for (uint32_t i = 0; i < 2050; ++i) at[i] = rint(log2(1 + i / 2048.0) * 1073741824.0) / 1073741824.0;
    }
  };
  static const Table table;
  if (n < 2) return 0;
  const uint32_t exponent = 63 - uint32_t(__builtin_clzll(n));
  const uint64_t mantissa = n << (63 - exponent) << 1;
  const uint32_t i = uint32_t(mantissa >> 53);
  const double rest = double(mantissa & ((uint64_t{1} << 53) - 1)) / 9007199254740992.0;
  return exponent + table.at[i] + rest * (table.at[i + 1] - table.at[i]);
}

namespace {

struct Fitter {
  const Flat& f;
  ContextModel& m;
  Work& w;
  MaskFitter mask{f, m, w};
  NearFitter neighbours{f, m, w};
  PairFitter pairs{f, m, w};
  ValueFitter values{f, m, w};
  SignFitter signs{f, m, w};

  double side_bits(const uint8_t* rows, const uint8_t* cols, uint32_t* sums) {
    uint32_t times[kSums];
    count_classes(m.rows, rows, f.rows, times);
    *sums = 1 + largest(times);
    double bits = classes_bits(times);
    count_classes(m.cols, cols, f.cols, times);
    *sums += largest(times);
    return bits + classes_bits(times);
  }

  // The symbols of lines and what codes them; returns their bits.
  static double take_lines(Lines& lines, const uint8_t* classes, uint64_t n) {
    uint32_t times[256] = {};
    lines.symbols = 1;
    for (uint64_t i = 0; i < n; ++i) {
      lines.classes[i] = is_dead(lines, i) ? 0 : classes[i];
      const uint32_t symbol = line_symbol(lines, i);
      ++times[symbol];
      if (symbol >= lines.symbols) lines.symbols = symbol + 1;
    }
    if (!lines.coded()) return 0;
    double least = 1e300;
    for (uint32_t scale = kLeastScale; scale <= 12; ++scale) {
      const double bits = ValueFitter::exact_bits(times, lines.symbols, scale);
      if (bits < least) least = bits, lines.scale = scale;
    }
    normalise(times, lines.symbols, lines.scale, lines.counts);
    return least;
  }

  template <class Use>
  void by_width(Use&& use) {
    f.width == 1 ? use(uint8_t{}) : f.width == 2 ? use(uint16_t{}) : f.width == 4 ? use(uint32_t{}) : use(uint64_t{});
  }

  // Classes of columns by sign above those by which values take `coded` bits, in w.signed_rows and w.signed_cols, where
  // they pay. How many classes there are of each of these; kSums where there are none.
  uint32_t fit_signs(const uint8_t* rows, const uint8_t* cols, uint32_t sums, double coded, uint32_t* tables) {
    if (m.coarse_count || !signs.promised(coded + double(f.count) * m.field())) return kSums;
    uint32_t total, merges, scale;
    const double side = side_bits(rows, cols, &total);
    uint8_t table_of[kSums];
    values.count_symbols(rows, cols, sums > 1, values.step());
    values.split(sums, sums, *tables, table_of);
    const double before = values.choose_merges(&merges, &scale);
    uint8_t *own_rows = w.signed_rows, *own_cols = w.signed_cols;
    memcpy(own_rows, rows, f.rows);
    memcpy(own_cols, cols, f.cols);
    // Classes that leave room for a second part.
    double more = 0;
    const uint32_t room = kMostSums >> m.near_count;
    if (2 * sums > room) {
      if (m.near_count) return kSums;
      while (2 * sums > room) {
        signs.halve(own_rows, f.rows, own_rows);
        signs.halve(own_cols, f.cols, own_cols);
        side_bits(own_rows, own_cols, &sums);
      }
      more = signs.mask_bits(own_rows, own_cols) - signs.mask_bits(rows, cols);
    }
    const uint32_t parts = signs.divide(room / sums, w.chances);
    if (parts < 2) return kSums;
    // The part of some column of class 0 comes first: symbol 0 has to occur.
    uint32_t first = 0;
    while (first < f.cols && (is_dead(m.cols, first) || own_cols[first])) ++first;
    if (first == f.cols) return kSums;
    first = parts - w.chances[first];
    for (uint32_t c = 0; c < f.cols; ++c)
      own_cols[c] = is_dead(m.cols, c) ? 0 : uint8_t(own_cols[c] + sums * ((w.chances[c] + first) % parts));
    more += side_bits(own_rows, own_cols, &total) - side + kLevelBits * sums * (parts - 1);
    // The sign has to be in the symbol for tables to tell it.
    const Sign old = m.sign;
    const Sign now = old == Sign::raw       ? Sign::modelled
                     : old != Sign::negated ? old
                     : f.width == 1         ? Sign::none
                                            : Sign::inverted;
    if (now != old) by_width([&](auto zero) { values.take_sign<decltype(zero)>(now); });
    values.count_symbols(own_rows, own_cols, true, values.step());
    double least = before - more - 0.001 * before - 100;
    uint32_t best = 0;
    for (uint32_t wanted : {1u, *tables}) {
      if (wanted * parts > kMostTables) continue;
      values.split(total, sums, wanted, table_of);
      const double bits = values.choose_merges(&merges, &scale);
      if (bits < least) least = bits, best = wanted;
    }
    if (best) {
      *tables = best;
      return sums;
    }
    if (now != old) by_width([&](auto zero) { values.take_sign<decltype(zero)>(old); });
    return kSums;
  }

  void fit(double* bits) {
    m.stored = f.count;
    m.coarse_count = m.near_count = 0;
    m.rows.dead = m.cols.dead = false;
    m.group = 1;
    m.lanes = 0;
    m.shortened = false;
    *bits = 16;
    if (!f.count) return;
    double plain, within = mask.fit_density(&plain), mask_bits = within;
    const double coarse = mask.fit_coarse(mask_bits, plain);
    if (m.limited()) {
      double inside;
      within = mask.fit_density(&inside);
      if (coarse + within - inside < mask_bits) {
        plain = coarse;
        mask_bits = coarse + within - inside;
      } else {
        m.coarse_count = 0;
        m.rows.dead = m.cols.dead = false;
        within = mask.fit_density(&plain);
      }
    }
    by_width([&](auto zero) { values.choose_sign<decltype(zero)>(); });
    // The classes are those that serve mask and values best: by density, by size, or none.
    uint32_t sums, tables = 1;
    uint8_t *rows = w.rows, *cols = w.cols;
    const bool fours = mask.fours_bits() < 0.98 * mask_bits;
    if (fours) {
      memset(rows, 0, f.rows);
      for (uint32_t c = 0; c < f.cols; ++c) cols[c] = c % 4;
      m.group = 4;
      m.near_count = 3;
      for (uint32_t i = 0; i < 3; ++i) m.near[i] = i + 1;
    }
    if (!fours) mask_bits = neighbours.fit(mask_bits);
    if (!m.near_count && f.count * 16 < f.size()) {
      mask.classify_lines(w.other_rows, w.other_cols);
      mask_bits += pairs.fit(within) - within;
    }
    side_bits(rows, cols, &sums);
    double coded = values.choose_tables(rows, cols, sums, &tables);
    const double least = coded + mask_bits;
    if (!m.near_count && f.count >= 2048 && values.fit_sizes()) {
      uint32_t other_tables = 1, other_sums;
      const double side = side_bits(w.other_rows, w.other_cols, &other_sums);
      const double own = values.choose_tables(w.other_rows, w.other_cols, other_sums, &other_tables);
      if (own + side + plain < least) {
        coded = own;
        sums = other_sums;
        rows = w.other_rows;
        cols = w.other_cols;
        tables = other_tables;
      }
    }
    const uint32_t each = fit_signs(rows, cols, sums, coded, &tables);
    if (each < kSums) rows = w.signed_rows, cols = w.signed_cols;
    double side = take_lines(m.rows, rows, f.rows) + take_lines(m.cols, cols, f.cols);
    m.sums = 1 + m.rows.most() + m.cols.most();
    values.count_symbols(rows, cols, tables > 1 || each < kSums, 1);
    values.split(m.sums, each, tables, m.table_of);
    *bits = values.finish_tables() + mask.choose_levels();
    if (f.width == 2) *bits -= values.leave_out<uint16_t>();
    if (f.width == 4) *bits -= values.leave_out<uint32_t>();
    if (f.width == 8) *bits -= values.leave_out<uint64_t>();
    for (uint32_t i = 0; i < m.coarse_count; ++i) {
      uint64_t live = 0;
      for (uint64_t b = 0; b < m.coarse[i].count; ++b) live += m.coarse[i].live[b / 8] >> b % 8 & 1;
      side += coarse_side(live, m.coarse[i].count);
    }
    *bits += side + 80 + (m.tables > 1 ? m.sums * 3.0 : 0);
    // A lane costs two bytes more than it tells: all of them less than 0.2 %. The elements of a column of a group are
    // decoded side by side, so more lanes than a panel has of them would be idle.
    const double bytes = *bits / 8;
    const uint64_t most = m.group > 1 && f.cols <= kPanel ? kPanel / f.cols * f.cols / m.group : kMostLanes;
    while (m.lanes < 6 && bytes > 2400.0 * (1u << m.lanes) && 2u << m.lanes <= most) ++m.lanes;
    *bits += 32.0 * (1u << m.lanes);
  }
};

}  // namespace

// Every symbol that occurs gets at least 1 of 2^scale; the rest is shared out as the symbols occur.
void normalise(const uint32_t* times, uint32_t symbols, uint32_t scale, uint16_t* counts) {
  uint64_t total = 0;
  for (uint32_t s = 0; s < symbols; ++s) total += times[s];
  int64_t rest = int64_t(1) << scale;
  for (uint32_t s = 0; s < symbols; ++s) {
    uint64_t count = times[s] ? ((uint64_t{times[s]} << (scale + 1)) / total + 1) / 2 : 0;
    if (times[s] && !count) count = 1;
    counts[s] = uint16_t(count);
    rest -= int64_t(count);
  }
  // What one more or one less changes, about.
  double change[256];
  const auto look = [&](uint32_t s) {
    change[s] = !times[s] || (rest < 0 && counts[s] == 1) ? 1e300
                : rest < 0                                ? times[s] / (counts[s] - 0.5)
                                                          : -(times[s] / (counts[s] + 0.5));
  };
  for (uint32_t s = 0; s < symbols && rest; ++s) look(s);
  for (; rest; rest += rest < 0 ? 1 : -1) {
    const uint32_t best = uint32_t(std::min_element(change, change + symbols) - change);
    counts[best] = uint16_t(counts[best] + (rest < 0 ? -1 : 1));
    look(best);
  }
}

uint64_t ones_of(const Flat& f, uint64_t begin, uint64_t end) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(f.mask);
  uint64_t count = 0;
  for (; begin < end && begin % 8; ++begin) count += bytes[begin / 8] >> begin % 8 & 1;
  for (; begin + 64 <= end; begin += 64) {
    uint64_t word;
    memcpy(&word, bytes + begin / 8, 8);
    count += uint64_t(__builtin_popcountll(word));
  }
  for (; begin < end; ++begin) count += bytes[begin / 8] >> begin % 8 & 1;
  return count;
}

uint64_t fit_room(const Flat& f) {
  return sizeof(Work) + 64 + (uint64_t{f.rows} + f.cols) * (8 + 4 + 4 + 3) + 3 * uint64_t{f.cols} + f.count +
         16 * kSlack;
}

void fit_model(const Flat& f, ContextModel& m, uint8_t* work, double* bits) {
  work += -reinterpret_cast<uintptr_t>(work) % 64;
  Work& w = *reinterpret_cast<Work*>(work);
  uint8_t* next = work + (sizeof(Work) + 63) / 64 * 64;
  auto take = [&](auto*& to, uint64_t n) {
    to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(next);
    next += n * sizeof *to;
  };
  take(w.row_sums, f.rows);
  take(w.col_sums, f.cols);
  take(w.row_ones, f.rows);
  take(w.col_ones, f.cols);
  take(w.row_of, f.rows);
  take(w.col_of, f.cols);
  take(w.rows, f.rows);
  take(w.cols, f.cols);
  take(w.other_rows, f.rows);
  take(w.other_cols, f.cols);
  take(w.signed_rows, f.rows);
  take(w.signed_cols, f.cols);
  take(w.line, f.cols + kSlack);
  take(w.chances, f.cols + kSlack);
  take(w.live, f.cols + kSlack);
  take(w.symbols, f.count + kSlack);
  Fitter fitter{f, m, w};
  fitter.fit(bits);
}

}  // namespace codec
