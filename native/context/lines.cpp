// Classes of rows, columns and elements in layout context, and which elements are dead (spec section 5.10).
#include <cstring>

#include "fit.hpp"

namespace codec {

void class_lines(Lines& lines, uint64_t n) {
  if (!lines.dead) return;
  for (uint64_t i = 0; i < n; ++i) {
    const uint8_t symbol = lines.classes[i];
    lines.live[i] = symbol ? 0xFF : 0;
    lines.classes[i] = uint8_t(symbol - (symbol != 0));
  }
}

namespace {

bool is_live(const Coarse& coarse, uint64_t block) { return coarse.live[block / 8] >> block % 8 & 1; }

}  // namespace

void LiveLines::mark(const Coarse& coarse, uint32_t row) {
  uint64_t block = uint64_t{row / coarse.rows} * coarse.across + col / coarse.cols;
  uint32_t end = coarse.cols - col % coarse.cols;
  for (uint32_t at = 0; at < n; at = end, end += coarse.cols, ++block) {
    if (end > n) end = n;
    if (is_live(coarse, block)) continue;
    const uint64_t dead = 0;
    uint32_t i = at;
    for (; i + 8 <= end; i += 8) memcpy(line + i, &dead, 8);
    for (; i < end; ++i) line[i] = 0;
  }
}

const uint8_t* LiveLines::of(uint32_t row) {
  if (!m.limited()) return nullptr;
  bool fresh = !begun, dead = m.rows.dead && !m.rows.live[row];
  for (uint32_t i = 0; i < m.coarse_count; ++i) {
    const Coarse& coarse = m.coarse[i];
    if (one_block(coarse))
      dead |= !is_live(coarse, uint64_t{row / coarse.rows} * coarse.across + col / coarse.cols);
    else
      fresh |= row % coarse.rows == 0;
  }
  begun = !dead;
  if (dead) {
    memset(line, 0, n);
  } else if (fresh) {
    if (m.cols.dead)
      memcpy(line, m.cols.live + col, n);
    else
      memset(line, 0xFF, n);
    for (uint32_t i = 0; i < m.coarse_count; ++i)
      if (!one_block(m.coarse[i])) mark(m.coarse[i], row);
  }
  return line;
}

void class_line(const ContextModel& m, uint32_t row, uint32_t col, uint32_t n, const uint8_t* __restrict live,
                uint8_t* __restrict line) {
  const uint8_t own = uint8_t(1 + (m.rows.coded() ? m.rows.classes[row] : 0));
  // A pointer of its own: bytes may be anything's, also the pointer in m.
  const uint8_t* __restrict cols = m.cols.classes + col;
  if (m.cols.coded())
    for (uint32_t i = 0; i < n; ++i) line[i] = uint8_t(own + cols[i]);
  else
    memset(line, own, n);
  if (live)
    for (uint32_t i = 0; i < n; ++i) line[i] &= live[i];
}

}  // namespace codec
