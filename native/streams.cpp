// Encoding: dense elements (or CSR arrays) to flat mask form to a layout's streams, the entropy stage on them, and the
// copy into a frame.
#include <cstdlib>
#include <cstring>

#include "engine.hpp"
#include "pool.hpp"
#include "workspace.hpp"

namespace codec {

Workspace& workspace() {
  static thread_local Workspace work;
  return work;
}

Streams* new_streams(uint64_t segments, uint32_t streams) {
  Streams* s = static_cast<Streams*>(calloc(1, sizeof(Streams)));
  if (!s) return nullptr;
  s->segments = segments;
  s->refused = ~uint64_t{0};
  s->streams = streams;
  s->part = static_cast<Part*>(calloc(segments * streams + 1, sizeof(Part)));
  if (s->part) return s;
  free(s);
  return nullptr;
}

void free_streams(Streams* s) {
  if (!s) return;
  for (uint64_t i = 0; i < s->segments * s->streams; ++i) free(s->part[i].data);
  free(s->part);
  free(s);
}

bool set_part(Part& part, const uint8_t* data, uint64_t size) {
  uint8_t* copy = static_cast<uint8_t*>(malloc(size + kSlack));
  if (!copy) return false;
  memcpy(copy, data, size);
  free(part.data);
  part.data = copy;
  part.size = size;
  return true;
}

Status write_segment(Layout layout, const Params& params, Flat flat, Streams* streams, uint64_t segment,
                     Workspace& work) {
  const LayoutKernels& kernel = kernels().layouts[uint32_t(layout)];
  if (kernel.columns(params)) {
    if (!work.dense.reserve(uint64_t(flat.rows) * flat.cols * flat.width + kSlack)) return Status::no_memory;
    flat.dense = work.dense.data;
  }
  uint64_t bytes[kStreams] = {};
  uint8_t* out[kStreams] = {};
  for (uint32_t s = 0; s < streams->streams; ++s)
    if (streams->shared[s]) flat.shared[s] = {streams->part[s].data, streams->part[s].size};
  flat.bits = streams->bits ? streams->bits : 8 * flat.width;
  kernel.bound(flat, params, bytes);
  Part* parts = streams->part + segment * streams->streams;
  for (uint32_t s = 0; s < streams->streams; ++s) {
    if (streams->shared[s]) continue;
    out[s] = parts[s].data = static_cast<uint8_t*>(malloc(bytes[s] + kSlack));
    if (!out[s]) return Status::no_memory;
  }
  Refused at;
  flat.refused = &at;
  kernel.write(flat, params, out, bytes);
  if (~at.position) {
    const uint64_t refused = segment << 32 | at.position << 8 | at.found;  // a segment has at most 2^22 elements
    uint64_t first = __atomic_load_n(&streams->refused, __ATOMIC_RELAXED);
    while (refused < first &&
           !__atomic_compare_exchange_n(&streams->refused, &first, refused, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
  }
  for (uint32_t s = 0; s < streams->streams; ++s) {
    if (streams->shared[s]) continue;
    parts[s].size = bytes[s];
    memset(out[s] + bytes[s], 0, kSlack);
  }
  __atomic_fetch_add(&streams->stored, flat.count, __ATOMIC_RELAXED);
  return Status::ok;
}

namespace {

struct Encoding {
  const Geometry& g;
  Layout layout;
  const Params& params;
  const uint8_t *dense, *keep;
  const int64_t *starts, *indices;
  const uint8_t* values;
  Streams* streams;
  Status status;
};

Status begin_flat(const Geometry& g, const Place& p, Workspace& work, Flat& flat) {
  uint64_t n = uint64_t(p.rows) * p.cols;
  if (!work.mask.reserve((words(n) + 2) * 8) || !work.values.reserve(n * g.width + 64 * 8 + kSlack))
    return Status::no_memory;
  uint64_t* mask = reinterpret_cast<uint64_t*>(work.mask.data);
  mask[words(n)] = mask[words(n) + 1] = 0;
  flat = {p.rows, p.cols, g.width, 0, mask, work.values.data, nullptr, {}, nullptr};
  flat.left = p.col;
  return Status::ok;
}

Status encode_segment(Encoding& e, uint64_t segment, Workspace& work) {
  Place p = place(e.g.rows, e.g.cols, e.g.segment_rows, e.g.segment_cols, segment);
  Flat flat;
  Status begun = begin_flat(e.g, p, work, flat);
  if (begun != Status::ok) return begun;
  uint64_t first = p.row * e.g.cols + p.col, n = uint64_t(p.rows) * p.cols, dropped = 0;
  uint64_t* mask = reinterpret_cast<uint64_t*>(work.mask.data);
  if (e.dense) {
    flat.count = kernels().gather(e.dense + first * e.g.width, e.keep ? e.keep + first : nullptr, n, e.g.width,
                                  e.g.nonzero, e.g.negative, mask, work.values.data, &dropped);
  } else {  // CSR arrays, proved by the caller: starts within the arrays, indices ascending and below cols
    memset(mask, 0, words(n) * 8);
    for (uint64_t row = 0; row < p.rows; ++row)
      for (int64_t i = e.starts[p.row + row]; i < e.starts[p.row + row + 1]; ++i) {
        uint64_t col = uint64_t(e.indices[i]);
        if (col < p.col || col >= p.col + p.cols) continue;
        uint64_t at = row * p.cols + col - p.col;
        mask[at / 64] |= uint64_t{1} << at % 64;
        memcpy(work.values.data + flat.count++ * e.g.width, e.values + uint64_t(i) * e.g.width, e.g.width);
      }
  }
  __atomic_fetch_add(&e.streams->dropped_negatives, dropped, __ATOMIC_RELAXED);
  return write_segment(e.layout, e.params, flat, e.streams, segment, work);
}

Status run(Encoding& e, uint32_t threads) {
  parallel(
      uint32_t(e.streams->segments), threads,
      [](void* at, uint32_t task, uint32_t) {
        Encoding& e = *static_cast<Encoding*>(at);
        Workspace& work = workspace();
        Status status = encode_segment(e, task, work);
        if (status != Status::ok) __atomic_store_n(&e.status, status, __ATOMIC_RELAXED);
        work.trim();
      },
      &e);
  return e.status;
}

}  // namespace

Status encode(const Geometry& g, Layout layout, const Params& params, const uint8_t* dense, const uint8_t* keep,
              Streams* streams, uint32_t threads) {
  Encoding e = {g, layout, params, dense, keep, nullptr, nullptr, nullptr, streams, Status::ok};
  return run(e, threads);
}

Status encode_csr(const Geometry& g, Layout layout, const Params& params, const int64_t* starts, const int64_t* indices,
                  const uint8_t* values, Streams* streams, uint32_t threads) {
  Encoding e = {g, layout, params, nullptr, nullptr, starts, indices, values, streams, Status::ok};
  return run(e, threads);
}

Result measure(const Geometry& g, const Question& q, const uint8_t* dense, const uint8_t* keep, const Measures& m,
               uint32_t threads) {
  struct Context {
    const Geometry& g;
    const uint8_t *dense, *keep;
  } context{g, dense, keep};
  return measure_segments(
      g, 0, segments(g.rows, g.cols, g.segment_rows, g.segment_cols), q, m, threads,
      [](void* at, uint64_t segment, Workspace& work, Flat& flat, Tally& tally) {
        const Context& c = *static_cast<Context*>(at);
        Place p = place(c.g.rows, c.g.cols, c.g.segment_rows, c.g.segment_cols, segment);
        Result r;
        r.status = begin_flat(c.g, p, work, flat);
        if (!r.ok()) return r;
        uint64_t first = p.row * c.g.cols + p.col;
        flat.count =
            kernels().gather(c.dense + first * c.g.width, c.keep ? c.keep + first : nullptr, uint64_t(p.rows) * p.cols,
                             c.g.width, c.g.nonzero, c.g.negative, reinterpret_cast<uint64_t*>(work.mask.data),
                             work.values.data, &tally.dropped_negatives);
        return r;
      },
      &context);
}

void histogram(const Streams* streams, uint32_t stream, uint32_t width, Kind kind, uint64_t* counts,
               uint64_t* or_of_keys) {
  for (uint64_t i = 0; i < streams->segments; ++i) {
    const Part& part = streams->part[i * streams->streams + stream];
    kernels().key_histogram(part.data, part.size / width, width, kind, counts, or_of_keys);
  }
}

Status code_stream(Streams* streams, uint32_t stream, const HuffmanCode& code, uint32_t threads) {
  struct Context {
    Streams* streams;
    uint32_t stream;
    const HuffmanCode& code;
    Status status;
  } context{streams, stream, code, Status::ok};
  parallel(
      uint32_t(streams->segments), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Part& part = c.streams->part[uint64_t(task) * c.streams->streams + c.stream];
        uint64_t items = part.size / c.code.width;
        uint64_t size = kernels().huffman_size(c.code, part.data, items);
        uint8_t* out = static_cast<uint8_t*>(malloc(size + kSlack));
        if (!out) {
          __atomic_store_n(&c.status, Status::no_memory, __ATOMIC_RELAXED);
          return;
        }
        part.size = kernels().huffman_encode(c.code, part.data, items, out);
        free(part.data);
        part.data = out;
      },
      &context);
  return context.status;
}

void pack_stream(Streams* streams, uint32_t stream, uint32_t bits, uint32_t threads) {
  struct Context {
    Streams* streams;
    uint32_t stream, bits;
  } context{streams, stream, bits};
  parallel(
      uint32_t(streams->segments), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Part& part = c.streams->part[uint64_t(task) * c.streams->streams + c.stream];
        // In place: eight codes are read before the fewer bytes that they become are written, and what is written
        // behind those lies before the next codes.
        kernels().pack_codes(part.data, part.size, c.bits, part.data);
        part.size = (part.size * c.bits + 7) / 8;
        memset(part.data + part.size, 0, kSlack);
      },
      &context);
}

void write_parts(const Streams* streams, uint8_t* base, const uint64_t* offsets, uint32_t* checksums,
                 uint32_t threads) {
  struct Context {
    const Streams* streams;
    uint8_t* base;
    const uint64_t* offsets;
    uint32_t* checksums;
  } context{streams, base, offsets, checksums};
  parallel(
      uint32_t(streams->segments), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        for (uint32_t s = 0; s < c.streams->streams;
             ++s) {  // offsets and checksums are by stream, then segment, as in the table
          const Part& part = c.streams->part[uint64_t(task) * c.streams->streams + s];
          uint64_t at_table = s * c.streams->segments + task;
          c.checksums[at_table] = kernels().crc32c(0, part.data, part.size);
          memcpy(c.base + c.offsets[at_table], part.data, part.size);
        }
      },
      &context);
}

}  // namespace codec
