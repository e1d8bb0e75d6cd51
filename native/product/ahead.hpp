// Rows of W that meet no zeros in x, fetched before they are multiplied. Their values are fetched one cache line at a time
// while another row is multiplied: all at once they hold up its loads (Zen 4, from memory: 1.5 times as slow).
#pragma once
#include "../view.hpp"

namespace codec {

// Finds them in their order, in those of the segments [segment, last) that products read row by row (kFinite).
struct Ahead {
  const View& v;
  const uint8_t* live;  // of each row of x, whether it holds anything but zeros
  uint64_t segment, last;
  uint64_t top = 0;            // row of the matrix that is the first of the segment before `segment`
  uint32_t row = 0, rows = 0;  // of that segment: the next one, and how many there are
  Span streams[kStreams] = {};

  // The positions of the next one; returns where its values are. Null: they need not be fetched.
  const uint8_t* fetch() {
    const LayoutKernels& layout = kernels().layouts[uint32_t(v.layout)];
    if (!layout.fetch) return nullptr;
    for (;;) {
      while (row < rows && !live[top + row]) ++row;
      if (row < rows) return layout.fetch(streams, v.params, v.coding.bits ? v.coding.bits : 8 * v.width, row++);
      if (segment == last) return nullptr;
      begin(segment++);
    }
  }

 private:
  void begin(uint64_t next) {
    const uint64_t part = next - v.first;
    row = rows = 0;
    if (__atomic_load_n(v.checked + part, __ATOMIC_RELAXED) != kFinite) return;
    for (uint32_t s = 0; s < v.streams; ++s) {
      const Stream& stream = v.stream[s];
      if (stream.coder) return;
      streams[s] = {stream.base + stream.offsets[stream.shared ? 0 : part], 0};
    }
    const Place at = v.grid.place(next);
    top = at.row;
    rows = at.rows;
  }
};

}  // namespace codec
