// Checking and decoding segments.
#include "../pool.hpp"
#include "segment.hpp"

namespace codec {

namespace {

Result decode_segment(const View& v, uint64_t segment, bool always, bool streaming, uint8_t* out, uint64_t stride,
                      Stored* stored, Workspace& work) {
  Reader r;
  Codebook book;
  Result opened = open(v, segment, always, true, work, r, book);
  if (!opened.ok()) return opened;
  // Lines that are in the cache when they are written take less time than stores that bypass it.
  if (streaming && !book.bits && kernels().layouts[uint32_t(v.layout)].fetches) {
    r.target = out;
    streaming = false;
  }
  return walk(v, r, book, Wanted::values, [&](Panel& p) {
    stored->most += p.count;
    stored->least += p.padded ? p.count - kernels().count_zeros(p.values, p.count, v.width) : p.count;
    kernels().forms[uint32_t(p.form)].expand(p, v.width, streaming, out, stride, work.scratch);
    return Status::ok;
  });
}

}  // namespace

Result check(const View& v, uint64_t from, uint64_t to, uint32_t threads) {
  if (from == to) return Result();
  Result shared = open_shared(v, from, to, true);
  if (!shared.ok()) return shared;
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
Result decode(const View& v, uint64_t first, uint64_t count, uint8_t* out, bool always, Stored* stored,
              uint32_t threads) {
  if (count == 0) return Result();
  const uint64_t from = v.grid.segment_at(first), last = v.grid.segment_at(first + count - 1) + 1;
  Result shared = open_shared(v, from, last, always);
  if (!shared.ok()) return shared;
  struct Context {
    const View& v;
    uint64_t first, count, segment;
    uint8_t* out;
    Stored* stored;
    bool always, streaming;
    Failure failure;
    // Stores that bypass the cache pay once the output is past what the caches hold (memcpy does the same).
  } context{v, first, count, from, out, stored, always, count * v.width >= (4u << 20), {}};
  parallel(
      uint32_t(last - from), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        const View& v = c.v;
        uint64_t segment = c.segment + task;
        Place p = v.grid.place(segment);
        const uint64_t begin = v.grid.element_at(segment), n = p.size(), stride = uint64_t{p.cols} * v.width;
        Workspace& work = workspace();
        Result r;
        Stored found = {};
        if (begin >= c.first && begin + n <= c.first + c.count) {
          r = decode_segment(v, segment, c.always, c.streaming, c.out + (begin - c.first) * v.width, stride, &found,
                             work);
        } else if (!work.dense.reserve(n * v.width + kSlack)) {
          r = failed(Status::no_memory);
        } else {  // a segment that the range cuts: whole into the workspace, its share from there
          r = decode_segment(v, segment, c.always, false, work.dense.data, stride, &found, work);
          uint64_t from = begin < c.first ? c.first - begin : 0;
          uint64_t to = begin + n > c.first + c.count ? c.first + c.count - begin : n;
          if (r.ok())
            memcpy(c.out + (begin + from - c.first) * v.width, work.dense.data + from * v.width, (to - from) * v.width);
        }
        if (!r.ok()) c.failure.report(r, segment);
        __atomic_fetch_add(&c.stored->least, found.least, __ATOMIC_RELAXED);
        __atomic_fetch_add(&c.stored->most, found.most, __ATOMIC_RELAXED);
        store_fence();
        work.trim();
      },
      &context);
  return context.failure.result;
}

}  // namespace codec
