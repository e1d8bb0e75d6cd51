// Elements, or CSR arrays, to flat mask form to a layout's streams.
#include "../pool.hpp"
#include "segment.hpp"

namespace codec {

Status write_segment(Layout layout, const Params& params, Flat flat, Streams* streams, uint64_t segment,
                     Workspace& work) {
  const LayoutKernels& kernel = kernels().layouts[uint32_t(layout)];
  if (kernel.columns(params)) {
    if (!work.dense.reserve(flat.size() * flat.width + kSlack)) return Status::no_memory;
    flat.dense = work.dense.data;
  }
  uint64_t bytes[kStreams] = {};
  uint8_t* out[kStreams] = {};
  for (uint32_t s = 0; s < streams->streams; ++s)
    if (streams->shared[s].data) flat.shared[s] = {streams->shared[s].data, streams->shared[s].size};
  kernel.bound(flat, params, bytes);
  Part* parts = streams->part + segment * streams->streams;
  for (uint32_t s = 0; s < streams->streams; ++s) {
    if (streams->shared[s].data) continue;
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
    if (streams->shared[s].data) continue;
    // What a layout asked for to work in goes back.
    if (uint8_t* kept = static_cast<uint8_t*>(realloc(out[s], bytes[s] + kSlack))) out[s] = parts[s].data = kept;
    parts[s].size = bytes[s];
    memset(out[s] + bytes[s], 0, kSlack);
  }
  __atomic_fetch_add(&streams->stored, flat.count, __ATOMIC_RELAXED);
  return Status::ok;
}

Status flatten_segment(const Matrix& e, uint64_t segment, uint64_t before, const uint8_t* dense, const uint8_t* keep,
                       Workspace& work, Flat& flat, uint64_t* dropped) {
  const Place p = e.grid.place(segment);
  const uint64_t first = e.grid.element_at(segment) - before, n = p.size();
  const Status begun = begin_flat(n, n, e.width, work, flat);
  if (begun != Status::ok) return begun;
  place_flat(p, flat);
  flat.count = kernels().compress(dense + first * e.width, keep ? keep + first : nullptr, n, e.width, e.nonzero,
                                  e.negative, reinterpret_cast<uint64_t*>(work.mask.data), work.values.data, dropped);
  return Status::ok;
}

namespace {

struct Encoding {
  const Matrix& e;
  uint64_t first, last;
  Layout layout;
  const Params& params;
  const uint8_t *dense, *keep;
  const int64_t *starts, *indices;
  const uint8_t* values;
  Streams* streams;
  Status status;
};

// CSR arrays, proved by the caller: starts lie within the arrays, indices ascend and are below cols.
Status place_entries(const Encoding& c, uint64_t segment, Workspace& work, Flat& flat) {
  const Place p = c.e.grid.place(segment);
  const uint64_t most = uint64_t(c.starts[p.row + p.rows] - c.starts[p.row]);
  const Status begun = begin_flat(p.size(), most, c.e.width, work, flat);
  if (begun != Status::ok) return begun;
  place_flat(p, flat);
  uint64_t* mask = reinterpret_cast<uint64_t*>(work.mask.data);
  memset(mask, 0, words(p.size()) * 8);
  for (uint64_t row = 0; row < p.rows; ++row)
    for (int64_t i = c.starts[p.row + row]; i < c.starts[p.row + row + 1]; ++i) {
      const uint64_t col = uint64_t(c.indices[i]);
      if (col < p.col || col >= p.col + p.cols) continue;
      const uint64_t at = row * p.cols + col - p.col;
      mask[at / 64] |= uint64_t{1} << at % 64;
      memcpy(work.values.data + flat.count++ * c.e.width, c.values + uint64_t(i) * c.e.width, c.e.width);
    }
  return Status::ok;
}

Status encode_segment(Encoding& c, uint64_t segment, Workspace& work) {
  Flat flat;
  uint64_t dropped = 0;
  const uint64_t before = c.e.grid.element_at(c.first);
  const Status status = c.dense ? flatten_segment(c.e, segment, before, c.dense, c.keep, work, flat, &dropped)
                                : place_entries(c, segment, work, flat);
  if (status != Status::ok) return status;
  __atomic_fetch_add(&c.streams->dropped_negatives, dropped, __ATOMIC_RELAXED);
  return write_segment(c.layout, c.params, flat, c.streams, segment, work);
}

Status run(Encoding& c, uint32_t threads) {
  if (c.first == c.last) return Status::ok;
  parallel(
      uint32_t(c.last - c.first), threads,
      [](void* at, uint32_t task, uint32_t) {
        Encoding& c = *static_cast<Encoding*>(at);
        Workspace& work = workspace();
        const Status status = encode_segment(c, c.first + task, work);
        if (status != Status::ok) __atomic_store_n(&c.status, status, __ATOMIC_RELAXED);
        work.trim();
      },
      &c);
  return c.status;
}

}  // namespace

Status encode(const Matrix& e, uint64_t first, uint64_t last, Layout layout, const Params& params, const uint8_t* dense,
              const uint8_t* keep, Streams* streams, uint32_t threads) {
  Encoding c = {e, first, last, layout, params, dense, keep, nullptr, nullptr, nullptr, streams, Status::ok};
  const Status status = run(c, threads);
  if (last - first < e.grid.segments()) give_back();  // a tensor that nobody holds whole
  return status;
}

Status encode_csr(const Matrix& e, Layout layout, const Params& params, const int64_t* starts, const int64_t* indices,
                  const uint8_t* values, Streams* streams, uint32_t threads) {
  const uint64_t last = e.grid.segments();
  Encoding c = {e, 0, last, layout, params, nullptr, nullptr, starts, indices, values, streams, Status::ok};
  return run(c, threads);
}

}  // namespace codec
