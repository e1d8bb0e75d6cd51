// Opening a segment: checksums, the entropy stage, codebooks.
#include "segment.hpp"

namespace codec {

bool inside(const Stream& stream, uint64_t parts, uint32_t alignment) {
  for (uint64_t i = 0; i < parts; ++i) {
    const uint64_t length = (stream.lengths[i] + uint64_t{alignment - 1}) & -uint64_t{alignment};
    if (stream.offsets[i] > stream.size || length > stream.size - stream.offsets[i]) return false;
  }
  return true;
}

namespace {

// One part: its checksum, then the zero bytes that follow it.
Result check_part(const View& v, uint32_t stream, uint64_t part) {
  const Stream& s = v.stream[stream];
  const uint8_t* data = s.base + s.offsets[part];
  const uint64_t size = s.lengths[part];
  const uint32_t found = kernels().crc32c(0, data, size);
  if (found != s.checksums[part]) return failed(Status::checksum, stream, found, s.checksums[part]);
  for (uint64_t i = size; i % v.alignment; ++i)
    if (data[i]) return failed(Status::padding, stream, data[i], 0);
  return Result();
}

}  // namespace

Result check_segment(const View& v, uint64_t segment) {
  for (uint32_t s = 0; s < v.streams; ++s) {
    if (v.stream[s].shared) continue;
    Result r = check_part(v, s, segment - v.first);
    if (!r.ok()) return r;
  }
  return Result();
}

namespace {

// 2^bits entries for each group of rows; where the layout pads with code 0, that is zero in the groups of rows [top, bottom).
Result check_codebook(const View& v, uint64_t top, uint64_t bottom) {
  const ValueCoding& coding = v.coding;
  const uint64_t groups = coding.rows ? (v.grid.rows - 1) / coding.rows + 1 : 1,
                 size = uint64_t{v.width} << coding.bits;
  const uint32_t number = v.streams - 1;
  const Stream& stream = v.stream[number];
  const uint64_t found = stream.lengths[0];
  if (found / size < groups) return failed(Status::too_short, number, found, groups * size);
  if (found != groups * size) return failed(Status::too_long, number, found, groups * size);
  if (!coding.zero_first) return Result();
  const uint64_t first = coding.rows ? top / coding.rows : 0, last = coding.rows ? (bottom - 1) / coding.rows : 0;
  for (uint64_t group = first; group <= last; ++group) {
    uint64_t entry = 0;
    memcpy(&entry, stream.base + stream.offsets[0] + group * size, v.width);
    if (entry) return failed(Status::out_of_range, number, entry, 0);
  }
  return Result();
}

// A part with kSlack readable bytes behind it: where it lies, or a copy if the buffer ends before.
bool take_part(const Stream& stream, uint64_t part, Buffer& copy, Span& found) {
  found = {stream.base + stream.offsets[part], stream.lengths[part]};
  if (stream.size - stream.offsets[part] - found.size >= kSlack) return true;
  if (!copy.reserve(found.size + kSlack)) return false;
  if (found.size) memcpy(copy.data, found.data, found.size);
  found.data = copy.data;
  return true;
}

// A reader of a segment with what is the same for every one of them.
bool begin_reader(const View& v, Workspace& work, Reader& r) {
  memset(&r, 0, sizeof r);
  r.width = v.coding.bits ? 1 : v.width;
  r.bits = v.coding.bits ? v.coding.bits : 8 * v.width;
  r.matrix_cols = v.grid.cols;
  r.params = v.params;
  for (uint32_t s = 0; s < v.streams; ++s) {
    const Stream& stream = v.stream[s];
    if (stream.shared && !take_part(stream, 0, work.last[s], r.stream[s])) return false;
  }
  return true;
}

}  // namespace

Result open_shared(const View& v, uint64_t first, uint64_t last, bool always) {
  if (v.checked && (always || !__atomic_load_n(&v.shared_checked, __ATOMIC_RELAXED))) {
    for (uint32_t s = 0; s < v.streams; ++s) {
      if (!v.stream[s].shared) continue;
      Result r = check_part(v, s, 0);
      if (!r.ok()) return r;
    }
    __atomic_store_n(&v.shared_checked, uint8_t{1}, __ATOMIC_RELAXED);
  }
  Reader r;
  if (!begin_reader(v, workspace(), r)) return failed(Status::no_memory);
  Result found = kernels().layouts[uint32_t(v.layout)].shared(r);
  if (!found.ok() || !v.coding.bits) return found;
  const Place from = v.grid.place(first), to = v.grid.place(last - 1);
  return check_codebook(v, from.row, to.row + to.rows);
}

Result open(const View& v, uint64_t segment, bool always, bool flat, Workspace& work, Reader& r, Codebook& book) {
  const uint64_t part = segment - v.first;
  if (v.checked && (always || !__atomic_load_n(&v.checked[part], __ATOMIC_RELAXED))) {
    Result checked = check_segment(v, segment);
    if (!checked.ok()) return checked;
    __atomic_store_n(&v.checked[part], kWhole, __ATOMIC_RELAXED);
  }
  const LayoutKernels& layout = kernels().layouts[uint32_t(v.layout)];
  const Place p = v.grid.place(segment);
  if (!begin_reader(v, work, r)) return failed(Status::no_memory);
  r.rows = p.rows;
  r.cols = p.cols;
  r.left = p.col;
  r.part = part;
  r.scratch = &work.scratch;
  r.proved = v.checked && __atomic_load_n(&v.checked[part], __ATOMIC_RELAXED) >= kProved;
  const uint64_t state = layout.state(p.rows, p.cols);
  if (!work.state.reserve(state)) return failed(Status::no_memory);
  if (state) memset(work.state.data, 0, state < kCleared ? state : kCleared);
  r.state = work.state.data;
  book = {nullptr, v.coding.bits, v.coding.rows, p.row};
  if (book.bits) book.entries = r.stream[v.streams - 1].data;
  for (uint32_t s = 0; s < v.streams; ++s) {
    const Stream& stream = v.stream[s];
    if (stream.shared) continue;
    Span stored;
    if (!take_part(stream, part, work.last[s], stored)) return failed(Status::no_memory);
    const uint8_t* data = stored.data;
    uint64_t size = stored.size;
    if (stream.coder) {
      const Coder& coder = *stream.coder;
      const CodingKernels& coding = kernels().codings[uint32_t(coder.coding)];
      // No more room is made than the part says it needs, nor than the layout can use.
      uint64_t limit = layout.most(p.rows, p.cols, r.width, v.params, s) / coder.width, items = 0;
      const uint64_t claimed = coding.claimed(data, size);
      if (claimed < limit) limit = claimed;
      if (!work.coded[s].reserve(limit * coder.width + kSlack)) return failed(Status::no_memory);
      Result decoded = coding.decode(coder.state, data, size, limit, work.coded[s].data, &items);
      if (!decoded.ok()) {
        decoded.stream = s;
        return decoded;
      }
      data = work.coded[s].data;
      size = items * coder.width;
    } else if (book.bits && book.bits < 8 && s == v.coding.codes) {
      // As many whole codes as there are bits; those that the layout does not ask for must be the padding of a byte.
      const uint64_t codes = size * 8 / book.bits, rest = size * 8 - codes * book.bits;
      const uint64_t most = layout.most(p.rows, p.cols, r.width, v.params, s);
      if (codes > most + 8) return failed(Status::too_long, s, size, (most * book.bits + 7) / 8);
      if (rest && data[size - 1] >> (8 - rest)) return failed(Status::padding, s, data[size - 1], 0);
      size = codes;
      r.packed = layout.by_panel;
      if (!r.packed) {
        if (!work.coded[s].reserve(codes + 8 + kSlack)) return failed(Status::no_memory);
        kernels().spread_codes(data, codes, book.bits, work.coded[s].data);
        data = work.coded[s].data;
      }
      r.spare[s] = (7 - rest) / book.bits;
    }
    r.stream[s] = {data, size};
  }
  // Rows of other groups must be told apart.
  flat = flat && (!book.rows || p.row / book.rows == (p.row + p.rows - 1) / book.rows);
  if (flat && layout.flat(v.params)) {
    r.cols = r.rows * r.cols;
    r.rows = 1;
  }
  return layout.open(r);
}

}  // namespace codec
