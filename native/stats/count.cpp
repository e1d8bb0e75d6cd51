// Counting statistics: segments shared out to threads, each with sums of its own, which are added up in the end.
#include "count.hpp"

#include "../pool.hpp"

namespace codec {

namespace {

constexpr uint64_t kMostElements = uint64_t{1} << 56;  // of a matrix: more than a machine holds, and no sum overflows

// What all tasks work on, and where the requests' sums and rooms lie in memory that each task has to itself.
struct Counting {
  const Grid& grid;
  const StatsRequest* requests;
  uint32_t n;
  Flatten flatten;
  void* inner;
  uint64_t first, last, across, tasks;
  uint64_t sums, room;  // words, and bytes, of all requests
  uint64_t lines;       // bytes of a segment's mask row by row; 0: nobody reads it
  uint64_t* own;        // the sums of all tasks but the first, which has the caller's
  uint64_t* dropped;
  Failure failure;
};

const Statistic& statistic(const StatsRequest& request) { return kernels().statistics[request.statistic]; }

StatsWords words_of(const Counting& c, const StatsRequest& request) {
  return statistic(request).words(request.a, request.b, c.grid);
}

Result count_segment(Counting& c, uint64_t number, uint64_t* own, Workspace& work) {
  Flat flat = {};
  uint64_t dropped = 0;
  Result r = c.flatten(c.inner, number, work, flat, &dropped);
  if (!r.ok()) return r;
  __atomic_fetch_add(c.dropped, dropped, __ATOMIC_RELAXED);
  const Place p = c.grid.place(number);
  StatsSegment segment = {flat, c.grid, number, p.row, p.col, flat.mask, words(p.cols)};
  if (c.lines && p.cols % 64) {
    uint64_t* lines = reinterpret_cast<uint64_t*>(work.room.data + c.room);
    kernels().align_rows(flat, lines);
    segment.lines = lines;
  }
  uint8_t* room = work.room.data;
  for (uint32_t i = 0; i < c.n; ++i) {
    const StatsRequest& request = c.requests[i];
    const StatsWords size = words_of(c, request);
    statistic(request).count(segment, request.a, request.b, own ? own : request.out, request.out + size.sums, room);
    if (own) own += size.sums;
    room += (size.room + 7) / 8 * 8;
  }
  return r;
}

void run(void* context, uint32_t task, uint32_t) {
  Counting& c = *static_cast<Counting*>(context);
  Workspace& work = workspace();
  uint64_t* own = task ? c.own + (task - 1) * c.sums : nullptr;
  const uint64_t n = c.across > 1 ? c.across : c.last - c.first;
  const uint64_t from = n * task / c.tasks, to = n * (uint64_t(task) + 1) / c.tasks;
  if (!work.room.reserve(c.room + c.lines + kSlack)) return c.failure.report(failed(Status::no_memory), c.first);
  memset(work.room.data, 0, c.room);
  for (uint64_t number = c.first; number < c.last; ++number) {
    const uint64_t owned = c.across > 1 ? number % c.across : number - c.first;
    if (owned < from || owned >= to) continue;
    Result r = count_segment(c, number, own, work);
    if (r.ok()) continue;
    c.failure.report(r, r.segment);
    break;
  }
  work.trim();
}

}  // namespace

bool find_statistic(const char* name, uint32_t* number) {
  for (uint32_t i = 0; i < kernels().statistic_count; ++i)
    if (strcmp(kernels().statistics[i].name, name) == 0) {
      *number = i;
      return true;
    }
  return false;
}

bool statistic_words(const Grid& grid, uint32_t number, uint64_t a, uint64_t b, uint64_t* total) {
  if (!grid.valid() || (!grid.empty() && grid.rows > kMostElements / grid.cols)) return false;
  const StatsWords size = kernels().statistics[number].words(a, b, grid);
  *total = size.sums + size.places;
  return size.sums != kNoStats.sums;
}

Result count_segments(const Grid& grid, uint64_t first, uint64_t last, const StatsRequest* requests, uint32_t n,
                      uint32_t threads, Flatten flatten, void* context, uint64_t* dropped) {
  if (first == last || n == 0) return Result();
  // Where rows are cut, a task has the segments of some columns to itself.
  const uint64_t across = grid.across(), most = across > 1 ? across : last - first;
  Counting c = {grid, requests, n, flatten, context, first, last, across, threads < most ? threads : most,
                0,    0,        0, nullptr, dropped, {}};
  for (uint32_t i = 0; i < n; ++i) {
    const StatsWords size = words_of(c, requests[i]);
    c.sums += size.sums;
    c.room += (size.room + 7) / 8 * 8;
    if (statistic(requests[i]).lines) c.lines = uint64_t(grid.segment_rows) * words(grid.segment_cols) * 8;
  }
  if (c.tasks > 1) {
    c.own = static_cast<uint64_t*>(calloc((c.tasks - 1) * c.sums + 1, sizeof(uint64_t)));
    if (!c.own) return failed(Status::no_memory);
  }
  parallel(uint32_t(c.tasks), threads, run, &c);
  for (uint64_t task = 1; task < c.tasks; ++task) {
    const uint64_t* own = c.own + (task - 1) * c.sums;
    for (uint32_t i = 0; i < n; ++i) {
      const uint64_t sums = words_of(c, requests[i]).sums;
      statistic(requests[i]).merge(requests[i].out, own, sums);
      own += sums;
    }
  }
  free(c.own);
  return c.failure.result;
}

}  // namespace codec
