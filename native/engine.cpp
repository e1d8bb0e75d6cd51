// Walking segments: checking, decoding, listing entries and changing the layout.
#include "engine.hpp"

#include <cstdlib>
#include <cstring>

#include "pool.hpp"
#include "segment.hpp"

namespace codec {

namespace {

uint64_t segment_of(const View& v, uint64_t element) {
  uint64_t across = (v.cols - 1) / v.segment_cols + 1;
  return element / v.cols / v.segment_rows * across + element % v.cols / v.segment_cols;
}

Result decode_segment(const View& v, uint64_t segment, bool always, bool streaming, uint8_t* out, uint64_t stride,
                      uint64_t* stored, Workspace& work) {
  Reader r;
  Codebook book;
  Result opened = open(v, segment, always, true, work, r, book);
  if (!opened.ok()) return opened;
  return walk(v, r, book, false, [&](Panel& p) {
    *stored += p.count;
    kernels().expand_panel(p, v.width, streaming, out, stride, work.scratch);
    return Status::ok;
  });
}

// A segment as flat mask form in the workspace; with `codes` its values are codes of a byte each.
Result flatten(const View& v, uint64_t segment, bool codes, Workspace& work, Flat& flat) {
  Reader r;
  Codebook book;
  Result opened = open(v, segment, false, true, work, r, book);
  if (!opened.ok()) return opened;
  const uint32_t width = codes ? 1 : v.width;
  uint64_t n = uint64_t(r.rows) * r.cols;
  if (!work.mask.reserve((words(n) + 2) * 8) || !work.values.reserve(n * width + 64 * 8 + kSlack))
    return failed(Status::no_memory);
  uint64_t* mask = reinterpret_cast<uint64_t*>(work.mask.data);
  memset(mask, 0, (words(n) + 2) * 8);
  uint64_t count = 0;
  const bool turned = kernels().layouts[uint32_t(v.layout)].columns(v.params);
  if (turned && !work.dense.reserve(n * width + kSlack)) return failed(Status::no_memory);
  Result read = walk(v, r, book, codes, [&](Panel& p) {
    // Whatever the zero rule: a -0.0 that is in a frame was kept.
    if (p.form == Form::dense || p.padded) kernels().drop_zeros(p, width, ~uint64_t{0}, work.packed, work.scratch);
    count = kernels().append_panel(p, r.cols, width, mask, work.values.data, count);
    if (turned) kernels().expand_panel(p, width, false, work.dense.data, uint64_t(r.cols) * width, work.scratch);
    return Status::ok;
  });
  if (!read.ok()) return read;
  if (turned) kernels().pack_flat(work.dense.data, mask, n, width, work.values.data);
  Place p = place(v, segment);
  flat = {p.rows, p.cols, width, count, mask, work.values.data, nullptr, {}, nullptr};
  flat.left = p.col;
  return Result();
}

}  // namespace

Result check(const View& v, uint64_t from, uint64_t to, uint32_t threads) {
  struct Context {
    const View& v;
    uint64_t from;
    Failure failure;
  } context{v, from, {}};
  parallel(
      uint32_t(to - from), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Result r = check_segment(c.v, c.from + task);
        if (!r.ok()) c.failure.report(r, c.from + task);
      },
      &context);
  return context.failure.result;
}

// Segments are contiguous in row-major order, and so is any range of elements that they are asked for.
Result decode(const View& v, uint64_t first, uint64_t count, uint8_t* out, bool always, uint64_t* stored,
              uint32_t threads) {
  if (count == 0) return Result();
  struct Context {
    const View& v;
    uint64_t first, count, segment;
    uint8_t* out;
    uint64_t* stored;
    bool always, streaming;
    Failure failure;
    // Stores that bypass the cache pay once the output is past what the caches hold (memcpy does the same).
  } context{v, first, count, segment_of(v, first), out, stored, always, count * v.width >= (4u << 20), {}};
  uint64_t last = segment_of(v, first + count - 1) + 1;
  parallel(
      uint32_t(last - context.segment), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        const View& v = c.v;
        uint64_t segment = c.segment + task;
        Place p = place(v, segment);
        uint64_t begin = p.row * v.cols + p.col, n = uint64_t(p.rows) * p.cols, stride = uint64_t(p.cols) * v.width;
        Workspace& work = workspace();
        Result r;
        uint64_t entries = 0;
        if (begin >= c.first && begin + n <= c.first + c.count) {
          r = decode_segment(v, segment, c.always, c.streaming, c.out + (begin - c.first) * v.width, stride, &entries,
                             work);
        } else if (!work.dense.reserve(n * v.width + kSlack)) {
          r = failed(Status::no_memory);
        } else {  // a segment that the range cuts: whole into the workspace, its share from there
          r = decode_segment(v, segment, c.always, false, work.dense.data, stride, &entries, work);
          uint64_t from = begin < c.first ? c.first - begin : 0;
          uint64_t to = begin + n > c.first + c.count ? c.first + c.count - begin : n;
          if (r.ok())
            memcpy(c.out + (begin + from - c.first) * v.width, work.dense.data + from * v.width, (to - from) * v.width);
        }
        if (!r.ok()) c.failure.report(r, segment);
        __atomic_fetch_add(c.stored, entries, __ATOMIC_RELAXED);
        store_fence();
        work.trim();
      },
      &context);
  return context.failure.result;
}

Result entries(const View& v, uint64_t first, uint64_t last, int64_t* starts, int64_t* indices, uint8_t* values,
               uint64_t capacity, uint64_t* count) {
  Workspace& work = workspace();
  for (uint64_t segment = first; segment < last; ++segment) {
    Flat flat;
    Result r = flatten(v, segment, false, work, flat);
    if (r.ok() && flat.count > capacity - *count) {
      r = failed(Status::too_long);
      r.stream = v.streams - 1;
      r.found = *count + flat.count;
      r.expected = capacity;
    }
    if (!r.ok()) {
      r.segment = uint32_t(segment);
      return r;
    }
    Place p = place(v, segment);
    memcpy(values + *count * v.width, flat.values, flat.count * v.width);
    for (uint64_t i = 0; i < p.rows; ++i) {
      for (uint64_t at = i * p.cols, end = at + p.cols, col = p.col; at < end;) {
        uint64_t take = 64 - at % 64 < end - at ? 64 - at % 64 : end - at;
        uint64_t word = flat.mask[at / 64] >> at % 64;
        if (take < 64) word &= (uint64_t{1} << take) - 1;
        for (; word; word &= word - 1) indices[(*count)++] = int64_t(col + uint64_t(__builtin_ctzll(word)));
        at += take;
        col += take;
      }
      starts[p.row + i + 1] = int64_t(*count);
    }
  }
  work.trim();
  return Result();
}

Result transcode(const View& v, uint64_t first, uint64_t last, Layout layout, const Params& params, Streams* streams,
                 const uint8_t* codes, uint32_t threads) {
  struct Context {
    const View& v;
    uint64_t first;
    Layout layout;
    const Params& params;
    Streams* streams;
    const uint8_t* codes;
    Failure failure;
  } context{v, first, layout, params, streams, codes, {}};
  parallel(
      uint32_t(last - first), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Workspace& work = workspace();
        uint64_t segment = c.first + task;
        Flat flat = {};
        Result r = flatten(c.v, segment, c.codes, work, flat);
        if (r.ok() && c.codes)
          for (uint64_t i = 0; i < flat.count; ++i) work.values.data[i] = c.codes[work.values.data[i]];
        if (r.ok()) r.status = write_segment(c.layout, c.params, flat, c.streams, segment, work);
        if (!r.ok()) c.failure.report(r, segment);
        work.trim();
      },
      &context);
  return context.failure.result;
}

Result measure(const View& v, uint64_t first, uint64_t last, const Question& q, const Measures& m, uint32_t threads) {
  const Geometry g = {v.rows, v.cols, v.segment_rows, v.segment_cols, v.width, 0, 0};
  return measure_segments(
      g, first, last, q, m, threads,
      [](void* at, uint64_t segment, Workspace& work, Flat& flat, Tally&) {
        return flatten(*static_cast<const View*>(at), segment, false, work, flat);
      },
      const_cast<View*>(&v));
}

}  // namespace codec
