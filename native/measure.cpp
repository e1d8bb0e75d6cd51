// Counting what sizes depend on: segments shared out to threads, each with a table of its own, and the tables added up.
#include <cstdlib>
#include <cstring>

#include "engine.hpp"
#include "pool.hpp"
#include "workspace.hpp"

namespace codec {

namespace {

uint64_t panels_of(uint32_t rows, uint32_t cols) {
  if (cols > kPanel) return uint64_t(rows) * ((cols - 1) / kPanel + 1);
  const uint32_t tall = kPanel / cols;
  return (rows - 1) / tall + 1;
}

void add(Tally& to, const Tally& from) {
  uint64_t* a = reinterpret_cast<uint64_t*>(&to);
  const uint64_t* b = reinterpret_cast<const uint64_t*>(&from);
  const uint64_t every = to.or_of_keys | from.or_of_keys;
  for (uint64_t i = 0; i < kTally; ++i) a[i] += b[i];
  to.or_of_keys = every;
}

struct Context {
  const Geometry& g;
  const Question& q;
  const Measures& m;
  Flatten flatten;
  void* inner;
  uint64_t first, last, across, tasks, longest;
  Tally* tallies;  // of all tasks but the first, which has the caller's
  uint64_t* cols;  // the same; where rows are cut, tasks own columns and all write to the caller's
  Result failure;
  int lock;
};

void report(Context& c, Result r, uint64_t segment) {
  r.segment = uint32_t(segment);
  while (__atomic_exchange_n(&c.lock, 1, __ATOMIC_ACQUIRE)) {
  }
  if (c.failure.ok() || r.segment < c.failure.segment) c.failure = r;
  __atomic_store_n(&c.lock, 0, __ATOMIC_RELEASE);
}

Result measure_segment(Context& c, uint64_t segment, Tally& tally, uint64_t* cols, Workspace& work) {
  const Geometry& g = c.g;
  Flat flat = {};
  Result r = c.flatten(c.inner, segment, work, flat, tally);
  if (!r.ok()) return r;
  const Place p = place(g.rows, g.cols, g.segment_rows, g.segment_cols, segment);
  const uint64_t whole = panels_of(g.segment_rows, g.segment_cols);
  Places at = {};
  at.rows = c.m.rows + (c.across > 1 ? segment : p.row);
  at.cols = cols + p.col;
  // Only the last segment of a row, or of the matrix, has fewer panels than the others.
  const uint64_t last_in_row = panels_of(1, uint32_t((g.cols - 1) % g.segment_cols + 1));
  at.panels = c.m.panels + (c.across > 1 ? p.row * ((c.across - 1) * whole + last_in_row) + segment % c.across * whole
                                         : segment * whole);
  at.long_gaps = c.m.long_gaps + segment * c.longest;
  at.long_zero_gaps = c.m.long_zero_gaps + segment * c.longest;
  at.part = c.m.segments + segment * kPerSegment;
  at.escapes = at.part + 1;
  at.fillers = at.escapes + 16;
  at.zero_escapes = at.fillers + 16;
  const uint64_t line = (words(p.cols) + 2) * 8;
  if (!work.room.reserve(kRuns * sizeof(uint32_t) + line)) {
    r.status = Status::no_memory;
    return r;
  }
  at.lengths = reinterpret_cast<uint32_t*>(work.room.data);
  at.room = reinterpret_cast<uint64_t*>(work.room.data + kRuns * sizeof(uint32_t));
  tally.stored += flat.count;
  kernels().measure(flat, c.q, at, tally);
  return r;
}

void run(void* context, uint32_t task, uint32_t) {
  Context& c = *static_cast<Context*>(context);
  Workspace& work = workspace();
  Tally& tally = task ? c.tallies[task - 1] : *c.m.tally;
  uint64_t* cols = task && c.across == 1 ? c.cols + (task - 1) * c.g.cols : c.m.cols;
  const uint64_t n = c.across > 1 ? c.across : c.last - c.first;
  const uint64_t from = n * task / c.tasks, to = n * (uint64_t(task) + 1) / c.tasks;
  for (uint64_t segment = c.first; segment < c.last; ++segment) {
    const uint64_t owned = c.across > 1 ? segment % c.across : segment - c.first;
    if (owned < from || owned >= to) continue;
    Result r = measure_segment(c, segment, tally, cols, work);
    if (r.ok()) continue;
    report(c, r, segment);
    break;
  }
  work.trim();
}

}  // namespace

uint64_t longest_runs(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols) {
  return rows && cols ? uint64_t(segment_rows) * segment_cols / kRuns : 0;
}

uint64_t panels(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols) {
  if (rows == 0 || cols == 0) return 0;
  const uint32_t width = uint32_t((cols - 1) % segment_cols + 1), height = uint32_t((rows - 1) % segment_rows + 1);
  const uint64_t across = (cols - 1) / segment_cols + 1, down = (rows - 1) / segment_rows + 1;
  if (across > 1) return rows * ((across - 1) * panels_of(1, segment_cols) + panels_of(1, width));
  return (down - 1) * panels_of(segment_rows, segment_cols) + panels_of(height, segment_cols);
}

Result measure_segments(const Geometry& g, uint64_t first, uint64_t last, const Question& q, const Measures& m,
                        uint32_t threads, Flatten flatten, void* context) {
  if (first == last) return Result();
  const uint64_t across = (g.cols - 1) / g.segment_cols + 1, most = across > 1 ? across : last - first;
  Context c = {g,
               q,
               m,
               flatten,
               context,
               first,
               last,
               across,
               threads < most ? threads : most,
               longest_runs(g.rows, g.cols, g.segment_rows, g.segment_cols),
               nullptr,
               nullptr,
               Result(),
               0};
  if (c.tasks > 1) {
    c.tallies = static_cast<Tally*>(calloc(c.tasks - 1, sizeof(Tally)));
    if (across == 1) c.cols = static_cast<uint64_t*>(calloc((c.tasks - 1) * g.cols, sizeof(uint64_t)));
    if (!c.tallies || (across == 1 && !c.cols)) {
      free(c.tallies);
      free(c.cols);
      Result r;
      r.status = Status::no_memory;
      return r;
    }
  }
  parallel(uint32_t(c.tasks), threads, run, &c);
  for (uint64_t task = 1; task < c.tasks; ++task) {
    add(*m.tally, c.tallies[task - 1]);
    if (across == 1)
      for (uint64_t i = 0; i < g.cols; ++i) m.cols[i] += c.cols[(task - 1) * g.cols + i];
  }
  free(c.tallies);
  free(c.cols);
  return c.failure;
}

}  // namespace codec
