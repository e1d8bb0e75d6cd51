// What statistics are counted from: frames, and dense elements.
#include "../encode/segment.hpp"
#include "../view/segment.hpp"
#include "count.hpp"

namespace codec {

Result count(const View& v, const Grid& grid, uint64_t first, uint64_t last, const StatsRequest* requests, uint32_t n,
             uint32_t threads) {
  if (first == last) return Result();
  struct Context {
    const View& v;
    const Grid& grid;
  } context{v, grid};
  uint64_t begin, end;
  source_range(v, grid, first, last, &begin, &end);
  Result shared = open_shared(v, begin, end, false);
  if (!shared.ok()) return shared;
  uint64_t dropped = 0;
  return count_segments(
      grid, first, last, requests, n, threads,
      [](void* at, uint64_t segment, Workspace& work, Flat& flat, uint64_t*) {
        const Context& c = *static_cast<Context*>(at);
        return flatten_segment(c.v, c.grid, segment, nullptr, work, flat);
      },
      &context, &dropped);
}

Result count(const Matrix& e, uint64_t first, uint64_t last, const StatsRequest* requests, uint32_t n,
             const uint8_t* dense, const uint8_t* keep, uint32_t threads, uint64_t* dropped) {
  if (first == last) return Result();
  struct Context {
    const Matrix& e;
    uint64_t before;
    const uint8_t *dense, *keep;
  } context{e, e.grid.element_at(first), dense, keep};
  return count_segments(
      e.grid, first, last, requests, n, threads,
      [](void* at, uint64_t segment, Workspace& work, Flat& flat, uint64_t* dropped) {
        const Context& c = *static_cast<Context*>(at);
        return failed(flatten_segment(c.e, segment, c.before, c.dense, c.keep, work, flat, dropped));
      },
      &context, dropped);
}

}  // namespace codec
