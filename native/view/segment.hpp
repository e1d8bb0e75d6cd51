// One segment being read: its checks, its streams out of the entropy stage, its panels in turn.
#pragma once
#include "../workspace.hpp"

namespace codec {

// Compares the checksums of a segment's own parts, and looks at the zero bytes behind them.
Result check_segment(const View&, uint64_t segment);

// What comes before the segments [first, last) of a call: the shared parts are checked like a segment's where that is
// still to be done, and what they hold is proved.
Result open_shared(const View&, uint64_t first, uint64_t last, bool always);

// Checks a segment's own parts where that is still to be done, brings its streams out of the entropy stage, and opens
// it. `flat`: as one row, where the layout does not mind.
Result open(const View&, uint64_t segment, bool always, bool flat, Workspace&, Reader&, Codebook&);

// What a walk hands out where values are coded by codebook: what the codes stand for, codes of a byte each, or codes as the
// layout reads them.
enum class Wanted { values, codes, stored };

// Reads a segment to its end, handing every panel to use(panel).
template <class Use>
Result walk(const View& v, Reader& r, const Codebook& book, Wanted wanted, Use&& use) {
  const LayoutKernels& layout = kernels().layouts[uint32_t(v.layout)];
  while (r.row < r.rows) {
    Panel p = {};
    Result next = layout.next(r, p);
    if (!next.ok()) return next;
    if (p.packed && wanted != Wanted::stored) kernels().spread_panel(p, *r.scratch);
    if (book.bits && wanted == Wanted::values) {
      uint8_t* values = reinterpret_cast<uint8_t*>(r.scratch->looked_up);
      kernels().forms[uint32_t(p.form)].look_up(p, book, v.width, values);
      p.values = values;
    }
    Status used = use(p);
    if (used != Status::ok) return failed(used);
  }
  const Result closed = layout.close(r);
  if (closed.ok() && !r.proved && v.checked) __atomic_store_n(&v.checked[r.part], kProved, __ATOMIC_RELAXED);
  return closed;
}

// `count` elements from the row-major index `first` on, in flat mask form of one row, from whatever segments of the view
// hold them; the caller says which rows and columns they are. The segment that was decoded last stays in the workspace
// until trim(). With `codes`, values are codes of a byte each, by that table of 256. On failure the result names the
// segment.
Result flatten_range(const View&, uint64_t first, uint64_t count, const uint8_t* codes, Workspace&, Flat&);

// A segment of another grid of the view's matrix.
Result flatten_segment(const View&, const Grid&, uint64_t segment, const uint8_t* codes, Workspace&, Flat&);

// The segments of a view that hold what segments [first, last) of another grid of its matrix do: *from up to *to.
void source_range(const View&, const Grid&, uint64_t first, uint64_t last, uint64_t* from, uint64_t* to);

}  // namespace codec
