// Choosing what codes the values: how their sign is treated, their symbols, tables by class.
#pragma once
#include <initializer_list>

#include "costs.hpp"

namespace codec {

struct ValueFitter {
  const Flat& f;
  ContextModel& m;
  Work& w;

  static constexpr uint64_t kFew = 1 << 13;        // values of which tables are a share that counts
  static constexpr uint32_t kNearItems = 1 << 13;  // items of all tables that stay in the first cache

  // Every so many rows tell enough to choose by.
  uint32_t step() const { return sample_step(f); }

  template <class T>
  static T key_of(T item, Sign sign) {
    const T top = T(T(1) << (8 * sizeof(T) - 1));
    if (sign == Sign::negated) item = folded_value(item);
    return sign == Sign::none ? item : sign == Sign::inverted ? T(item ^ top) : T(item & T(top - 1));
  }

  // Range and OR of the keys of every `step`-th value.
  template <class T>
  void key_range(Sign sign, uint64_t step, T* least, T* most, T* any) const {
    T low = T(~T(0)), high = 0, bits = 0;
    for (uint64_t i = 0; i < f.count; i += step) {
      T item;
      memcpy(&item, f.values + i * sizeof(T), sizeof(T));
      const T key = key_of(item, sign);
      low = key < low ? key : low;
      high = key > high ? key : high;
      bits |= key;
    }
    *least = low;
    *most = high;
    *any = bits;
  }

  // Sets zeros, low, first and symbols to the finest symbols that there can be.
  template <class T>
  void finest(Sign sign, T least, T most, T any) {
    const uint32_t bits = key_width(sizeof(T), sign);
    m.sign = sign;
    m.zeros = any ? uint32_t(__builtin_ctzll(any)) : bits - 1;
    const uint32_t each = sign == Sign::modelled ? 2 : 1;
    for (m.low = 0;; ++m.low) {
      const uint64_t first = uint64_t{least} >> (m.zeros + m.low), last = uint64_t{most} >> (m.zeros + m.low);
      if (last - first < 256 / each) {
        m.first = first;
        m.symbols = uint32_t(last - first + 1) * each;
        return;
      }
    }
  }

  template <class T>
  uint32_t symbol_of(T item) const {
    const uint32_t top = uint32_t((uint64_t{key_of(item, m.sign)} >> (m.zeros + m.low)) - m.first);
    return m.sign == Sign::modelled ? 2 * top + uint32_t(item >> (8 * sizeof(T) - 1)) : top;
  }

  // Whether a value is the least integer, which has no negative.
  template <class T>
  bool has_least() const {
    bool found = false;
    for (uint64_t i = 0; i < f.count; ++i) {
      T item;
      memcpy(&item, f.values + i * sizeof(T), sizeof(T));
      found |= item == T(T(1) << (8 * sizeof(T) - 1));
    }
    return found;
  }

  // Bits of every `step`-th value, which have such symbols, with the share of their table.
  double sample_bits(const uint32_t* times, uint64_t step) const {
    double least = 1e300;
    for (uint32_t merges = 0; merges < 8 && m.low + merges + m.zeros < key_width(f.width, m.sign); ++merges) {
      if (m.field() + merges > kMostRaw) break;
      uint32_t merged[256];
      const bool pairs = m.sign == Sign::modelled;
      const uint32_t symbols = coarser(times, room_before(merges), m.symbols, pairs, merges, merged);
      uint64_t n = 0, used = 0;
      double bits = 0;
      for (uint32_t s = 0; s < symbols; ++s) {
        bits -= log_sum(merged[s]);
        n += merged[s];
        used += merged[s] != 0;
      }
      bits += log_sum(n) + double(n) * (m.field() + merges) + counts_bits(merged, symbols) / double(step);
      // Symbols that occur once tell as much of a sample as of the tensor: half a bit for each of all.
      if (step > 1) bits += double(used) * 0.72;
      least = bits < least ? bits : least;
    }
    return least;
  }

  // How the sign is treated, by a sample.
  template <class T>
  void choose_sign() {
    Sign best = Sign::none;
    const uint64_t step = f.count / 2048 + 1;
    const bool folds = !has_least<T>();
    double least = 1e300;
    for (Sign sign : {Sign::raw, Sign::none, Sign::inverted, Sign::modelled, Sign::negated}) {
      if (sign == Sign::negated && !folds) continue;
      T low, high, any;
      key_range<T>(sign, step, &low, &high, &any);
      finest<T>(sign, low, high, any);
      if (m.field() > kMostRaw) continue;
      uint32_t times[256] = {};
      for (uint64_t i = 0; i < f.count; i += step) {
        T item;
        memcpy(&item, f.values + i * sizeof(T), sizeof(T));
        ++times[symbol_of(item)];
      }
      const double bits = sample_bits(times, step);
      // Signs of numbers are as likely as each other, and without them tables are half as large, which samples hardly
      // tell.
      const bool number = sign == Sign::negated && best == Sign::none;
      if (bits < least * (number ? step > 1 ? 1.005 : 1 : sign == Sign::raw ? 1 : 0.99)) least = bits, best = sign;
    }
    take_sign<T>(best);
  }

  // The finest symbols of all values with their sign treated so.
  template <class T>
  void take_sign(Sign sign) {
    T low, high, any;
    key_range<T>(sign, 1, &low, &high, &any);
    finest<T>(sign, low, high, any);
    for (uint64_t i = 0; i < f.count; ++i) {
      T item;
      memcpy(&item, f.values + i * sizeof(T), sizeof(T));
      w.symbols[i] = uint8_t(symbol_of(item));
    }
  }

  // By class, of every `step`-th row.
  void count_symbols(const uint8_t* rows, const uint8_t* cols, bool differ, uint32_t step) {
    memset(w.histogram, 0, sizeof w.histogram);
    const uint8_t* symbol = w.symbols;
    if (!differ) {
      for (uint64_t i = 0; i + 4 <= f.count; i += 4)
        for (uint32_t j = 0; j < 4; ++j) ++w.histogram[j][symbol[i + j]];
      for (uint64_t i = f.count / 4 * 4; i < f.count; ++i) ++w.histogram[0][symbol[i]];
      for (uint32_t j = 1; j < 4; ++j)
        for (uint32_t s = 0; s < 256; ++s) {
          w.histogram[0][s] += w.histogram[j][s];
          w.histogram[j][s] = 0;
        }
      return;
    }
    for (uint64_t r = 0; r < f.rows; ++r) {
      if (r % step) {
        symbol += w.row_ones[r];
        continue;
      }
      const uint32_t row = rows[r];
      each_bit(f, r, [&](uint32_t c) { w.histogram[row + cols[c]][*symbol++] += step; });
    }
  }

  // What symbols begin before their first one where neighbours are merged so often: nothing, unless the last would stand
  // for keys of more bits than the largest has. (Codes of a codebook may be of fewer bits than their item, which are not
  // known here.)
  uint32_t room_before(uint32_t times) const {
    const uint64_t last = (m.symbols - 1) >> (m.sign == Sign::modelled);
    const uint64_t most = ~uint64_t{0} >> __builtin_clzll((m.first + last) | 1);
    const bool fits = (((last >> times) + 1) << times) - 1 <= most - m.first;
    return fits ? 0 : uint32_t(m.first & ((1u << times) - 1));
  }

  // Merges neighbouring symbols of a table so often.
  static uint32_t coarser(const uint32_t* from, uint32_t before, uint32_t symbols, bool pairs, uint32_t times,
                          uint32_t* to) {
    uint32_t count = 0;
    memset(to, 0, 256 * sizeof(uint32_t));
    for (uint32_t s = 0; s < symbols; ++s) {
      const uint32_t top = (before + (pairs ? s / 2 : s)) >> times;
      const uint32_t into = pairs ? 2 * top + s % 2 : top;
      to[into] += from[s];
      if (from[s] && into >= count) count = into + 1;
    }
    return count;
  }

  // Bits of symbols that occur so often, and of their table in the head, about: what rounding counts to a sum of 2^scale
  // costs is left out, but for symbols that get more than their share.
  static double table_bits(const uint32_t* times, uint32_t symbols, uint32_t scale) {
    uint64_t n = 0, total = 0;
    uint32_t counts[256];
    for (uint32_t s = 0; s < symbols; ++s) n += times[s];
    const double share = n ? double(256u << scale) / double(n) : 0;
    double bits = 0;
    for (uint32_t s = 0; s < symbols; ++s) {
      uint64_t count = uint64_t(times[s] * share);  // of 256 * 2^scale
      if (times[s]) {
        if (count < 256) count = 256;
        bits -= times[s] * log2_of(count);
        total += count;
      }
      counts[s] = uint32_t((count + 128) / 256);
    }
    return bits + double(n) * log2_of(total) + counts_bits(counts, symbols);
  }

  // The same, exactly. Fewer bits of counts make tables smaller and symbols larger: of few values, both matter.
  static double exact_bits(const uint32_t* times, uint32_t symbols, uint32_t scale) {
    uint32_t used = 0;
    uint16_t counts[256];
    for (uint32_t s = 0; s < symbols; ++s) used += times[s] != 0;
    if (used > 1u << scale) return 1e300;
    normalise(times, symbols, scale, counts);
    double bits = counts_bits(counts, symbols);
    for (uint32_t s = 0; s < symbols; ++s)
      if (times[s]) bits += times[s] * (scale - log2_of(counts[s]));
    return bits;
  }

  uint32_t scale_of(uint32_t tables) const {
    uint32_t scale = f.count >= 16384 ? 12 : f.count >= 2048 ? 11 : 10;
    if (scale == 12 && tables << scale > kNearItems) scale = 11;
    while (tables << scale > kMostTableItems) --scale;
    return scale;
  }

  // Bits of the values with so many tables for each `each` classes of w.histogram; fills table_of and w.by_table.
  double split(uint32_t sums, uint32_t each, uint32_t tables, uint8_t* table_of) {
    uint32_t number = 0;
    memset(w.by_table, 0, sizeof w.by_table);
    for (uint32_t from = 0; from < sums; from += each)
      number += split_some(from, from + each < sums ? from + each : sums, number, tables, table_of);
    m.tables = number;
    double bits = 0;
    for (uint32_t t = 0; t < number; ++t) bits += table_bits(w.by_table[t], m.symbols, scale_of(number));
    return bits + (number > 1 ? sums * 3.0 : 0);
  }

  // Tables from the number `first` on for the classes from `begin` to `end`; returns how many.
  uint32_t split_some(uint32_t begin, uint32_t end, uint32_t first, uint32_t tables, uint8_t* table_of) {
    uint64_t total[kSums], all = 0, below = 0;
    for (uint32_t s = begin; s < end; ++s) {
      total[s] = 0;
      for (uint32_t one : w.histogram[s]) total[s] += one;
      all += total[s];
      table_of[s] = 0;
    }
    if (!all) return 0;
    uint32_t number = first, used = 0;
    for (uint32_t s = begin; s < end; ++s) {
      // A table holds about its share of the values.
      const uint32_t wanted = first + uint32_t((below + total[s] / 2) * tables / all);
      if (used && total[s] && wanted > number) {
        ++number;
        used = 0;
      }
      table_of[s] = uint8_t(number);
      used += total[s] != 0;
      below += total[s];
      for (uint32_t i = 0; i < 256; ++i) w.by_table[number][i] += w.histogram[s][i];
    }
    if (!used && number > first) {  // classes without values at the end
      for (uint32_t s = begin; s < end; ++s)
        if (table_of[s] == number) table_of[s] = uint8_t(number - 1);
      --number;
    }
    return number + 1 - first;
  }

  // The best number of tables for the classes of rows and columns.
  double choose_tables(const uint8_t* rows, const uint8_t* cols, uint32_t sums, uint32_t* tables) {
    count_symbols(rows, cols, sums > 1, step());
    // Several tables take longer to decode by than one: they have to save a little of all bits of the values.
    double best = 1e300, least = 0;
    uint8_t table_of[kSums];
    for (uint32_t wanted = 1; wanted <= kMostTables; wanted *= 2) {
      if (wanted > 1 && (sums == 1 || wanted > 2 * sums || f.count < 512 * wanted)) break;
      const double bits = split(sums, sums, wanted, table_of);
      if (bits < best - least) best = bits, *tables = wanted;
      if (wanted == 1) least = (bits + double(f.count) * m.field()) / 4096;
      if (bits > best * 1.02) break;
    }
    return best;
  }

  // Classes by how large the values of a row and of a column are, in w.other_rows and w.other_cols; whether there are.
  bool fit_sizes() {
    memset(w.row_sums, 0, 8 * uint64_t{f.rows});
    memset(w.col_sums, 0, 8 * uint64_t{f.cols});
    uint8_t size[256];
    const bool whole = m.sign == Sign::none && f.width == 1;
    for (uint32_t s = 0; s < 256; ++s) {
      const uint32_t byte = uint32_t((m.first + s) << m.low);
      const uint32_t middle = m.symbols / 2;
      size[s] = uint8_t(whole                      ? (byte < 128 ? byte : 256 - byte)
                        : m.sign == Sign::modelled ? s / 2
                        : m.sign == Sign::inverted ? (s < middle ? middle - s : s - middle)
                                                   : s);
    }
    uint64_t all = 0, squares = 0;
    const uint8_t* symbol = w.symbols;
    for (uint64_t r = 0; r < f.rows; ++r) {
      uint64_t sum = 0;
      each_bit(f, r, [&](uint32_t c) {
        const uint32_t own = size[*symbol++];
        sum += own;
        squares += own * own;
        w.col_sums[c] += own;
      });
      w.row_sums[r] = sum;
      all += sum;
    }
    const double mean = double(all) / double(f.count), spread = double(squares) / double(f.count) - mean * mean;
    const bool rows = size_classes(w.row_sums, w.row_ones, f.rows, mean, spread, w.other_rows);
    const bool cols = size_classes(w.col_sums, w.col_ones, f.cols, mean, spread, w.other_cols);
    return rows || cols;
  }

  // Up to 12 classes; all 0 where means differ by no more than chance.
  static bool size_classes(const uint64_t* sums, const uint32_t* ones, uint64_t n, double mean, double spread,
                           uint8_t* classes) {
    double chance = 0, found = 0, least = 1e300, most = -1e300;
    memset(classes, 0, n);
    if (n < 2) return false;
    for (uint64_t i = 0; i < n; ++i) {
      if (!ones[i]) continue;
      const double off = double(sums[i]) / ones[i] - mean;
      found += off * off * ones[i];
      chance += spread;
      least = off < least ? off : least;
      most = off > most ? off : most;
    }
    if (found < 1.5 * chance || most <= least) return false;
    double deviation = found / double(chance) * spread;  // of a mean of one value; of the means of lines, roughly:
    double count = 0;
    for (uint64_t i = 0; i < n; ++i) count += ones[i];
    deviation = sqrt((found - chance) / count);
    const double step = deviation / 1.5;
    const double from = -3 * deviation < least ? least : -3 * deviation;
    uint8_t low = 255;
    for (uint64_t i = 0; i < n; ++i) {
      const double off = ones[i] ? double(sums[i]) / ones[i] - mean : 0;
      const double at = (off - from) / step;
      classes[i] = uint8_t(at < 0 ? 0 : at > 11 ? 11 : at);
      low = classes[i] < low ? classes[i] : low;
    }
    for (uint64_t i = 0; i < n; ++i) classes[i] = uint8_t(classes[i] - low);
    return true;
  }

  // Bits of the values of w.by_table by the symbols that are cheapest with what they tell: how often the finest ones are
  // merged, and the scale of their tables.
  double choose_merges(uint32_t* merges, uint32_t* scale) const {
    uint32_t merged[256];
    const bool pairs = m.sign == Sign::modelled;
    double least = 1e300;
    const uint32_t most = scale_of(m.tables);
    *merges = 0;
    *scale = most;
    for (uint32_t times = 0; times < 8 && m.low + times + m.zeros < key_width(f.width, m.sign); ++times) {
      if (m.field() + times > kMostRaw) break;
      double own = 1e300;
      for (uint32_t by = most; by >= kLeastScale; --by) {
        double bits = double(f.count) * (m.field() + times);
        for (uint32_t t = 0; t < m.tables; ++t) {
          const uint32_t symbols = coarser(w.by_table[t], room_before(times), m.symbols, pairs, times, merged);
          bits += f.count < kFew ? exact_bits(merged, symbols, by) : table_bits(merged, symbols, by);
        }
        if (bits < least) least = bits, *merges = times, *scale = by;
        const bool better = bits < own;
        if (better) own = bits;
        if (!better || f.count >= kFew) break;
      }
      if (own > least * 1.01) break;
    }
    return least;
  }

  // The tables themselves.
  double finish_tables() {
    uint32_t merged[256], best, scale;
    const bool pairs = m.sign == Sign::modelled;
    const double least = choose_merges(&best, &scale);
    const uint32_t before = room_before(best);
    uint32_t symbols = 0;
    for (uint32_t t = 0; t < m.tables; ++t) {
      const uint32_t own = coarser(w.by_table[t], before, m.symbols, pairs, best, merged);
      memcpy(w.by_table[t], merged, sizeof merged);
      symbols = own > symbols ? own : symbols;
    }
    for (uint32_t t = 0; t < m.tables; ++t) normalise(w.by_table[t], symbols, scale, m.counts[t]);
    m.first -= before;
    m.fine = best;
    m.low += best;
    m.symbols = symbols;
    m.scale = scale;
    return least;
  }

  // Raw bits that are 0 in all values of a panel: returns how many bits it saves not to write them, or 0.
  template <class T>
  double leave_out() {
    if (!m.low) return 0;
    const Panels panels(f.rows, f.cols);
    const uint64_t count = panels.count();
    const T mask = T((T(1) << m.low) - 1);
    uint64_t at = 0, saved = 0;
    uint32_t most = 0;
    for (uint64_t p = 0; p < count; ++p) {
      const uint64_t end = at + ones_of(f, panels.begin(p), panels.begin(p + 1));
      T any = 0;
      for (uint64_t i = at; i < end; ++i) {
        T item;
        memcpy(&item, f.values + i * sizeof(T), sizeof(T));
        any |= T((key_of(item, m.sign) >> m.zeros) - m.base());
      }
      any &= mask;
      const uint32_t bits = at == end ? 0 : any ? uint32_t(__builtin_ctzll(any)) : m.low;
      m.left_out[p] = uint8_t(bits);
      if (bits > most) most = bits;
      saved += bits * (end - at);
      at = end;
    }
    const double gain = double(saved) - 48 - 6.0 * double(count);
    m.shortened = most && gain > 0;
    m.raw_size = (f.count * m.field() - saved + 7) / 8;
    return m.shortened ? gain : 0;
  }
};

}  // namespace codec
