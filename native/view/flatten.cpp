// Segments to flat mask form, in any grid, and their entries as CSR.
#include "segment.hpp"

namespace codec {

namespace {

// A segment as flat mask form in the workspace's source; with `codes` its values are codes of a byte each, by that table.
Result flatten(const View& v, uint64_t segment, const uint8_t* codes, Workspace& work) {
  Source& source = work.source;
  source.view = nullptr;
  Reader r;
  Codebook book;
  Result opened = open(v, segment, false, true, work, r, book);
  if (!opened.ok()) return opened;
  const uint32_t width = codes ? 1 : v.width;
  const uint64_t n = uint64_t{r.rows} * r.cols;
  if (!source.mask.reserve((words(n) + 2) * 8) || !source.values.reserve(n * width + 64 * 8 + kSlack))
    return failed(Status::no_memory);
  uint64_t* mask = reinterpret_cast<uint64_t*>(source.mask.data);
  uint8_t* values = source.values.data;
  memset(mask, 0, (words(n) + 2) * 8);
  uint64_t count = 0;
  const FormKernels* forms = kernels().forms;
  const bool transposed = kernels().layouts[uint32_t(v.layout)].columns(v.params);
  if (transposed && !work.dense.reserve(n * width + kSlack)) return failed(Status::no_memory);
  Result read = walk(v, r, book, codes ? Wanted::codes : Wanted::values, [&](Panel& p) {
    // Whatever the zero rule: a -0.0 that is in a frame was kept.
    if (p.padded) forms[uint32_t(p.form)].drop_zeros(p, width, ~uint64_t{0}, work.scratch);
    const FormKernels& form = forms[uint32_t(p.form)];
    count = form.append(p, r.cols, width, mask, values, count);
    if (transposed) form.expand(p, width, false, work.dense.data, uint64_t{r.cols} * width, work.scratch);
    return Status::ok;
  });
  if (!read.ok()) return read;
  if (transposed) kernels().pack(work.dense.data, mask, n, width, values);
  if (codes)
    for (uint64_t i = 0; i < count; ++i) values[i] = codes[values[i]];
  source.flat = Flat();
  source.flat.width = width;
  source.flat.count = count;
  source.flat.mask = mask;
  source.flat.values = values;
  place_flat(v.grid.place(segment), source.flat);
  source.view = &v;
  source.segment = segment;
  source.begin = v.grid.element_at(segment);
  source.at = source.items = 0;
  return Result();
}

}  // namespace

Result flatten_range(const View& v, uint64_t first, uint64_t count, const uint8_t* codes, Workspace& work, Flat& flat) {
  const Kernels& k = kernels();
  Source& source = work.source;
  uint64_t* mask = nullptr;
  for (uint64_t done = 0; done < count;) {
    const uint64_t segment = v.grid.segment_at(first + done);
    if (source.view != &v || source.segment != segment) {
      Result r = flatten(v, segment, codes, work);
      r.segment = uint32_t(segment);
      if (!r.ok()) return r;
    }
    const uint64_t* held = source.flat.mask;
    const uint64_t size = source.flat.size(), from = first + done - source.begin;
    const uint64_t take = size - from < count - done ? size - from : count - done;
    if (take == size && take == count) {  // the segment itself
      flat = source.flat;
      return Result();
    }
    if (!mask) {
      if (begin_flat(count, count, source.flat.width, work, flat) != Status::ok) return failed(Status::no_memory);
      mask = reinterpret_cast<uint64_t*>(work.mask.data);
      memset(mask, 0, words(count) * 8);
    }
    if (from < source.at) source.at = source.items = 0;
    source.items += k.copy_bits(held, source.at, from - source.at, nullptr, 0);
    const uint64_t items = k.copy_bits(held, from, take, mask, done);
    memcpy(work.values.data + flat.count * flat.width, source.flat.values + source.items * flat.width,
           items * flat.width);
    flat.count += items;
    source.items += items;
    source.at = from + take;
    done += take;
  }
  return Result();
}

Result flatten_segment(const View& v, const Grid& grid, uint64_t segment, const uint8_t* codes, Workspace& work,
                       Flat& flat) {
  const Place p = grid.place(segment);
  const Result r = flatten_range(v, grid.element_at(segment), p.size(), codes, work, flat);
  if (r.ok()) place_flat(p, flat);
  return r;
}

void source_range(const View& v, const Grid& grid, uint64_t first, uint64_t last, uint64_t* from, uint64_t* to) {
  *from = v.grid.segment_at(grid.element_at(first));
  *to = v.grid.segment_at(grid.element_at(last) - 1) + 1;
}

Result entries(const View& v, uint64_t first, uint64_t last, int64_t* starts, int64_t* indices, uint8_t* values,
               uint64_t capacity, uint64_t* count) {
  if (first == last) return Result();
  Result shared = open_shared(v, first, last, false);
  if (!shared.ok()) return shared;
  Workspace& work = workspace();
  Result r;
  for (uint64_t segment = first; segment < last && r.ok(); ++segment) {
    const Place p = v.grid.place(segment);
    Flat flat;
    r = flatten_segment(v, v.grid, segment, nullptr, work, flat);
    if (r.ok() && flat.count > capacity - *count) {
      r = failed(Status::too_long, v.streams - 1, *count + flat.count, capacity);
      r.segment = uint32_t(segment);
    }
    if (!r.ok()) break;
    // A frame that stores nothing has no room for values, and may have no memory of them: memcpy asks for some.
    if (flat.count) memcpy(values + *count * v.width, flat.values, flat.count * v.width);
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
  return r;
}

}  // namespace codec
