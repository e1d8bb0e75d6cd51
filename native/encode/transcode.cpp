// Changing the layout, segment by segment: never through a whole dense matrix.
#include "../pool.hpp"
#include "../view/segment.hpp"
#include "segment.hpp"

namespace codec {

// Threads take runs of segments that lie side by side, so that one that decodes a segment of the view has all that it is
// for.
Result transcode(const View& v, const Grid& grid, uint64_t first, uint64_t last, Layout layout, const Params& params,
                 Streams* streams, const uint8_t* codes, uint32_t threads) {
  if (first == last) return Result();
  uint64_t from, to;
  source_range(v, grid, first, last, &from, &to);
  Result shared = open_shared(v, from, to, false);
  if (!shared.ok()) return shared;
  struct Context {
    const View& v;
    const Grid& grid;
    uint64_t first, n, runs;
    Layout layout;
    const Params& params;
    Streams* streams;
    const uint8_t* codes;
    Failure failure;
  } context{v, grid, first, last - first, last - first, layout, params, streams, codes, {}};
  const uint64_t most = threads > 1 ? 8 * uint64_t{threads} : 1;
  if (context.runs > most) context.runs = most;
  parallel(
      uint32_t(context.runs), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Workspace& work = workspace();
        const uint64_t end = c.first + c.n * (uint64_t{task} + 1) / c.runs;
        for (uint64_t segment = c.first + c.n * task / c.runs; segment < end; ++segment) {
          Flat flat;
          Result r = flatten_segment(c.v, c.grid, segment, c.codes, work, flat);
          if (r.ok()) r.status = write_segment(c.layout, c.params, flat, c.streams, segment, work);
          if (r.ok()) continue;
          c.failure.report(r, r.segment);
          break;
        }
        work.trim();
      },
      &context);
  return context.failure.result;
}

}  // namespace codec
