// The head of a part in layout context, read and written (spec section 5.10).
#include "fit.hpp"

#include <cstring>
#include <utility>

namespace codec {

namespace {

// Bits, the least significant first. Reading stops at the end: from there on all bits are 0, and `over` is set.
struct BitReader {
  const uint8_t* data;
  uint64_t size, at;  // in bits
  bool over;

  uint64_t window() const {
    uint64_t word = 0;
    const uint64_t byte = at / 8;
    if (byte < size / 8) memcpy(&word, data + byte, size / 8 - byte < 8 ? size / 8 - byte : 8);
    return word >> at % 8;
  }
  void skip(uint64_t n) {
    at += n;
    if (at > size) over = true, at = size;
  }
  uint64_t bits(uint32_t n) {  // up to 64
    if (!n) return 0;
    if (n > 32) {
      const uint64_t low = bits(32);
      return low | bits(n - 32) << 32;
    }
    const uint64_t found = window() & ((uint64_t{1} << n) - 1);
    skip(n);
    return found;
  }
  // Zeros before a one, which is read too; more than `most` count as that, and as an overrun.
  uint64_t zeros(uint64_t most) {
    for (uint64_t n = 0;;) {
      const uint64_t word = window();
      const uint64_t held = size - at < 57 ? size - at : 57;
      const uint64_t here = word ? uint64_t(__builtin_ctzll(word)) : held;
      if (here < held) {
        skip(here + 1);
        n += here;
        if (n <= most) return n;
        over = true;
        return most;
      }
      n += held;
      skip(held);
      if (n > most || at == size) {
        over = true;
        return most;
      }
    }
  }
  uint64_t golomb(uint32_t k) {  // exponential Golomb code of order k
    const uint32_t n = uint32_t(zeros(40));
    const uint64_t top = (uint64_t{1} << n | bits(n)) - 1;
    return top << k | bits(k);
  }
  uint64_t rice(uint32_t k, uint64_t most) {
    const uint64_t top = zeros(most >> k);
    return top << k | bits(k);
  }
};

struct BitWriter {
  uint8_t* data;
  uint64_t at;

  void bits(uint64_t value, uint32_t n) {
    for (uint32_t done = 0; done < n;) {
      const uint32_t shift = at % 8, take = 8 - shift < n - done ? 8 - shift : n - done;
      if (!shift) data[at / 8] = 0;
      data[at / 8] |= uint8_t((value >> done & ((1u << take) - 1)) << shift);
      at += take;
      done += take;
    }
  }
  void zeros(uint64_t n) {
    for (; n >= 32; n -= 32) bits(0, 32);
    bits(uint64_t{1} << n, uint32_t(n) + 1);
  }
  void golomb(uint64_t value, uint32_t k) {
    const uint64_t top = (value >> k) + 1;
    const uint32_t n = 63 - uint32_t(__builtin_clzll(top));
    zeros(n);
    bits(top, n);
    bits(value, k);
  }
  void rice(uint64_t value, uint32_t k) {
    zeros(value >> k);
    bits(value, k);
  }
};

int64_t unfold(uint64_t value) { return value & 1 ? -int64_t(value >> 1) - 1 : int64_t(value >> 1); }

uint32_t bit_length(uint64_t n) { return n ? 64 - uint32_t(__builtin_clzll(n)) : 0; }

uint64_t low_ones(uint32_t n) { return n < 64 ? (uint64_t{1} << n) - 1 : ~uint64_t{0}; }

// Counts of n symbols whose sum is 2^scale: the last is what the others leave.
Status read_counts(BitReader& in, uint32_t n, uint32_t scale, uint16_t* counts, uint64_t* found) {
  const uint32_t k = uint32_t(in.bits(2));
  int64_t count = 0, left = int64_t(1) << scale;
  for (uint32_t s = 0; s + 1 < n; ++s) {
    count += unfold(in.golomb(count_order(k, uint64_t(count))));
    if (in.over) return Status::too_short;
    *found = uint64_t(count);
    if (count < 0 || count > left) return Status::bad_table;
    counts[s] = uint16_t(count);
    left -= count;
  }
  counts[n - 1] = uint16_t(left);
  return Status::ok;
}

void write_counts(BitWriter& out, uint32_t n, const uint16_t* counts) {
  const auto each = [&](uint32_t k, auto&& use) {
    uint64_t before = 0;
    for (uint32_t s = 0; s + 1 < n; before = counts[s++])
      use(fold(int64_t(counts[s]) - int64_t(before)), count_order(k, before));
  };
  uint64_t sums[kCountOrders] = {};
  uint32_t best = 0;
  for (uint32_t k = 0; k < kCountOrders; ++k) {
    each(k, [&](uint64_t step, uint32_t order) { sums[k] += golomb_bits(step, order); });
    if (sums[k] < sums[best]) best = k;
  }
  out.bits(best, 2);
  each(best, [&](uint64_t step, uint32_t order) { out.golomb(step, order); });
}

Status read_lines(BitReader& in, Lines& lines, uint64_t* found) {
  const uint64_t symbols = *found = in.golomb(1) + 1;
  if (symbols > kMostLines) return Status::out_of_range;
  lines.symbols = uint32_t(symbols);
  lines.dead = false;
  if (!lines.coded()) return Status::ok;
  lines.dead = in.bits(1);
  lines.scale = kLeastScale + uint32_t(in.bits(3));
  const Status status = read_counts(in, lines.symbols, lines.scale, lines.counts, found);
  if (status != Status::ok) return status;
  *found = symbols;
  return lines.counts[0] && lines.counts[symbols - 1] ? Status::ok : Status::bad_table;
}

void write_lines(BitWriter& out, const Lines& lines) {
  out.golomb(lines.symbols - 1, 1);
  if (!lines.coded()) return;
  out.bits(lines.dead, 1);
  out.bits(lines.scale - kLeastScale, 3);
  write_counts(out, lines.symbols, lines.counts);
}

Status read_coarse(BitReader& in, uint32_t rows, uint32_t cols, Coarse& coarse, uint64_t* found) {
  const uint64_t tall = in.golomb(2) + 1, wide = in.golomb(2) + 1;
  *found = tall;
  if (tall > rows) return Status::out_of_range;
  *found = wide;
  if (wide > cols || tall * wide < 4) return Status::out_of_range;
  coarse.rows = uint32_t(tall);
  coarse.cols = uint32_t(wide);
  coarse.across = (cols + wide - 1) / wide;
  coarse.count = (rows + tall - 1) / tall * coarse.across;
  const uint64_t live = *found = in.golomb(8);
  if (live > coarse.count) return Status::out_of_range;
  memset(coarse.live, 0, coarse.count / 8 + 1);
  const uint32_t k = uint32_t(in.bits(4));
  uint64_t at = 0;
  for (uint64_t i = 0; i < live; ++i) {
    at += in.rice(k, coarse.count);
    if (in.over) return Status::too_short;
    *found = at;
    if (at >= coarse.count) return Status::out_of_range;
    coarse.live[at / 8] |= uint8_t(1u << at % 8);
    ++at;
  }
  return Status::ok;
}

void write_coarse(BitWriter& out, const Coarse& coarse) {
  uint64_t live = 0, gap = 0, sums[16] = {};
  auto each = [&](auto&& use) {
    gap = 0;
    for (uint64_t i = 0; i < coarse.count; ++i) {
      if (coarse.live[i / 8] >> i % 8 & 1) {
        use(gap);
        gap = 0;
      } else {
        ++gap;
      }
    }
  };
  each([&](uint64_t n) {
    ++live;
    for (uint32_t k = 0; k < 16; ++k) sums[k] += (n >> k) + 1 + k;
  });
  uint32_t best = 0;
  for (uint32_t k = 1; k < 16; ++k)
    if (sums[k] < sums[best]) best = k;
  out.golomb(coarse.rows - 1, 2);
  out.golomb(coarse.cols - 1, 2);
  out.golomb(live, 8);
  out.bits(best, 4);
  each([&](uint64_t n) { out.rice(n, best); });
}

// Whether every symbol stands for keys that fit into their bits.
bool symbols_fit(const ContextModel& m, uint32_t width) {
  const uint32_t bits = key_width(width, m.sign) - m.zeros;
  const uint64_t last = (m.symbols - 1) >> (m.sign == Sign::modelled);
  return last <= low_ones(bits - m.low) && ((last + 1) << m.low) - 1 <= low_ones(bits) - m.base();
}

// Tables: no longer than they have to be.
Status read_tables(BitReader& in, uint32_t width, ContextModel& m, uint64_t* found) {
  m.tables = uint32_t(in.bits(4)) + 1;
  for (uint32_t s = 0; m.tables > 1 && s < m.sums; ++s) {
    m.table_of[s] = uint8_t(in.bits(bit_length(m.tables - 1)));
    *found = m.table_of[s];
    if (m.table_of[s] >= m.tables) return Status::out_of_range;
  }
  m.sign = Sign(in.bits(3));
  m.zeros = uint32_t(in.bits(6));
  m.low = uint32_t(in.bits(6));
  const uint32_t bits = key_width(width, m.sign);
  *found = m.low + m.zeros;
  if (m.sign > Sign::negated || m.low + m.zeros >= bits || m.field() > kMostRaw) return Status::bad_table;
  *found = m.fine = uint32_t(in.bits(3));
  if (m.fine > m.low) return Status::bad_table;
  m.first = in.bits(bits - m.low - m.zeros + m.fine);
  m.symbols = uint32_t(in.bits(8)) + 1;
  m.scale = kLeastScale + uint32_t(in.bits(3));
  *found = m.first;
  if (!symbols_fit(m, width)) return Status::bad_table;
  *found = m.tables << m.scale;
  if (*found > kMostTableItems) return Status::bad_table;
  uint32_t least = 0, most = 0;
  for (uint32_t t = 0; t < m.tables; ++t) {
    const Status status = read_counts(in, m.symbols, m.scale, m.counts[t], found);
    if (status != Status::ok) return status;
    least |= m.counts[t][0];
    if (m.sign == Sign::modelled && m.symbols > 1) least |= m.counts[t][1];
    most |= m.counts[t][m.symbols - 1];
  }
  *found = m.symbols;
  return least && most ? Status::ok : Status::bad_table;
}

void write_tables(BitWriter& out, uint32_t width, const ContextModel& m) {
  out.bits(m.tables - 1, 4);
  for (uint32_t s = 0; m.tables > 1 && s < m.sums; ++s) out.bits(m.table_of[s], bit_length(m.tables - 1));
  out.bits(uint32_t(m.sign), 3);
  out.bits(m.zeros, 6);
  out.bits(m.low, 6);
  out.bits(m.fine, 3);
  out.bits(m.first, key_width(width, m.sign) - m.low - m.zeros + m.fine);
  out.bits(m.symbols - 1, 8);
  out.bits(m.scale - kLeastScale, 3);
  for (uint32_t t = 0; t < m.tables; ++t) write_counts(out, m.symbols, m.counts[t]);
}

Status read_left_out(BitReader& in, uint64_t panels, ContextModel& m, uint64_t* found) {
  m.shortened = in.bits(1);
  if (!m.shortened) return Status::ok;
  m.raw_size = in.golomb(8);
  const uint32_t k = uint32_t(in.bits(3));
  uint64_t most = 0;
  for (uint64_t i = 0; i < panels && !in.over; ++i) {
    const uint64_t bits = *found = in.rice(k, 2 * kMostRaw);
    if (bits > m.low) return Status::out_of_range;
    m.left_out[i] = uint8_t(bits);
    if (bits > most) most = bits;
  }
  *found = most;
  return most || in.over ? Status::ok : Status::not_canonical;
}

void write_left_out(BitWriter& out, uint64_t panels, const ContextModel& m) {
  out.bits(m.shortened, 1);
  if (!m.shortened) return;
  out.golomb(m.raw_size, 8);
  uint64_t sums[8] = {};
  for (uint64_t i = 0; i < panels; ++i)
    for (uint32_t k = 0; k < 8; ++k) sums[k] += (m.left_out[i] >> k) + 1u + k;
  uint32_t best = 0;
  for (uint32_t k = 1; k < 8; ++k)
    if (sums[k] < sums[best]) best = k;
  out.bits(best, 3);
  for (uint64_t i = 0; i < panels; ++i) out.rice(m.left_out[i], best);
}

}  // namespace

void place_model(ContextModel& m, uint64_t rows, uint64_t cols, uint8_t* room) {
  uint8_t* next = room;
  for (auto [lines, n] : {std::pair(&m.rows, rows), std::pair(&m.cols, cols)})
    for (uint8_t** one : {&lines->classes, &lines->live}) {
      *one = next;
      next += n + kSlack;
    }
  for (Coarse& coarse : m.coarse) {
    coarse.live = next;
    next += rows * cols / 8 + 16;
  }
  m.left_out = next;
}

Status read_model(const uint8_t* part, uint64_t size, uint32_t rows, uint32_t cols, uint32_t width, ContextModel& m,
                  uint64_t* bytes, uint64_t* found) {
  BitReader in = {part, 8 * size, 0, false};
  *bytes = 0;
  m.stored = *found = in.golomb(8);
  if (m.stored > uint64_t{rows} * cols) return Status::out_of_range;
  if (m.stored) {
    m.lanes = uint32_t(in.bits(3));
    *found = m.lanes;
    if (m.lanes > 6) return Status::out_of_range;
    *found = m.coarse_count = uint32_t(in.bits(2));
    if (m.coarse_count > kMostCoarse) return Status::out_of_range;
    for (uint32_t i = 0; i < m.coarse_count; ++i) {
      const Status status = read_coarse(in, rows, cols, m.coarse[i], found);
      if (status != Status::ok) return status;
    }
    for (Lines* lines : {&m.rows, &m.cols}) {
      const Status status = read_lines(in, *lines, found);
      if (status != Status::ok) return status;
    }
    m.sums = 1 + m.rows.most() + m.cols.most();
    if (in.over) return Status::too_short;
    *found = m.sums;
    if (m.sums > kMostSums) return Status::out_of_range;
    m.group = 1;
    m.near_count = 0;
    const uint64_t group = *found = in.golomb(0) + 1;
    if (group > 1) {
      if (cols > kPanel || cols % group) return Status::out_of_range;
      m.group = uint32_t(group);
      m.near_count = uint32_t(in.bits(2));
      for (uint32_t i = 0; i < m.near_count; ++i) {
        const uint64_t near = *found = in.golomb(1) + 1;
        if (near >= group || (i && near <= m.near[i - 1])) return Status::not_ascending;
        m.near[i] = uint32_t(near);
      }
      *found = m.near_count;
      if (!m.near_count) return Status::not_canonical;
    }
    *found = m.chances();
    if (m.chances() > kMostChances) return Status::out_of_range;
    int64_t level = 160;
    for (uint32_t i = 0; i < m.chances(); ++i) {
      level += unfold(in.golomb(2));
      if (in.over) return Status::too_short;
      *found = uint64_t(level);
      if (level < 0 || level >= int64_t(kLevels)) return Status::out_of_range;
      m.level[i] = uint16_t(level);
    }
    Status status = read_tables(in, width, m, found);
    if (status == Status::ok) status = read_left_out(in, Panels(rows, cols).count(), m, found);
    if (status != Status::ok) return status;
  }
  *found = size;
  if (in.over) return Status::too_short;
  *bytes = (in.at + 7) / 8;
  const uint64_t rest = *found = in.bits(uint32_t(8 * *bytes - in.at));
  return rest ? Status::padding : Status::ok;
}

uint64_t most_head(uint64_t rows, uint64_t cols) {
  // Gaps take less than two bits a block.
  return 64 + 2 * 4 * kMostLines + kMostCoarse * (rows * cols / 4 + 64) + 4 * kMostChances + 4 * 256 * kMostTables +
         2 * Panels::most(rows * cols);
}

uint64_t write_model(const ContextModel& m, uint32_t rows, uint32_t cols, uint32_t width, uint8_t* out) {
  BitWriter to = {out, 0};
  to.golomb(m.stored, 8);
  if (m.stored) {
    to.bits(m.lanes, 3);
    to.bits(m.coarse_count, 2);
    for (uint32_t i = 0; i < m.coarse_count; ++i) write_coarse(to, m.coarse[i]);
    write_lines(to, m.rows);
    write_lines(to, m.cols);
    to.golomb(m.group - 1, 0);
    if (m.group > 1) {
      to.bits(m.near_count, 2);
      for (uint32_t i = 0; i < m.near_count; ++i) to.golomb(m.near[i] - 1, 1);
    }
    for (uint32_t i = 0; i < m.chances(); ++i) to.golomb(fold(int64_t(m.level[i]) - (i ? m.level[i - 1] : 160)), 2);
    write_tables(to, width, m);
    write_left_out(to, Panels(rows, cols).count(), m);
  }
  return (to.at + 7) / 8;
}

void fill_table(const uint16_t* counts, uint32_t symbols, uint32_t* items) {
  uint32_t start = 0;
  for (uint32_t s = 0; s < symbols; ++s) {
    for (uint32_t i = 0; i < counts[s]; ++i) items[start + i] = s | i << 8 | (counts[s] - 1u) << 20;
    start += counts[s];
  }
}

}  // namespace codec
