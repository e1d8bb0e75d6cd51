// One segment being read: where it lies, its checks, its streams out of the entropy stage, its panels in turn.
#pragma once
#include "engine.hpp"
#include "workspace.hpp"

namespace codec {

inline Place place(const View& v, uint64_t segment) {
  return place(v.rows, v.cols, v.segment_rows, v.segment_cols, segment);
}

// Tasks hand their first failure to whoever started them: the lowest segment's, whatever the threads did.
struct Failure {
  Result result;
  bool set = false;
  int lock = 0;

  void report(Result r, uint64_t segment) {
    r.segment = uint32_t(segment);
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {
    }
    if (!set || r.segment < result.segment) result = r;
    set = true;
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
  }
};

inline Result failed(Status status, uint32_t stream = 0, uint64_t found = 0, uint64_t expected = 0) {
  Result r;
  r.status = status;
  r.stream = stream;
  r.found = found;
  r.expected = expected;
  return r;
}

// Compares the checksums of a segment's parts.
Result check_segment(const View&, uint64_t segment);

// Checks a segment's parts where that is still to be done, brings its streams out of the entropy stage, and opens it.
// `flat`: as one row, where the layout does not mind.
Result open(const View&, uint64_t segment, bool always, bool flat, Workspace&, Reader&, Codebook&);

// Reads a segment to its end, handing every panel to use(panel): with its values, or (`codes`) its codes, a byte each.
template <class Use>
Result walk(const View& v, Reader& r, const Codebook& book, bool codes, Use&& use) {
  const LayoutKernels& layout = kernels().layouts[uint32_t(v.layout)];
  while (r.row < r.rows) {
    Panel p = {};
    Result next = layout.next(r, p);
    if (!next.ok()) return next;
    if (book.bits && !codes) {
      uint8_t* values = reinterpret_cast<uint8_t*>(r.scratch->looked_up);
      kernels().look_up(p, book, v.width, values);
      p.values = values;
    }
    Status used = use(p);
    if (used != Status::ok) return failed(used);
  }
  return layout.close(r);
}

}  // namespace codec
