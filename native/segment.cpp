// Opening a segment: checksums, the entropy stage, codebooks.
#include "segment.hpp"

#include <cstring>

namespace codec {

uint64_t segments(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols) {
  if (rows == 0 || cols == 0) return 0;
  return ((rows - 1) / segment_rows + 1) * ((cols - 1) / segment_cols + 1);
}

Place place(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols, uint64_t segment) {
  uint64_t across = (cols - 1) / segment_cols + 1;
  uint64_t row = segment / across * segment_rows, col = segment % across * segment_cols;
  uint64_t height = rows - row < segment_rows ? rows - row : segment_rows;
  uint64_t width = cols - col < segment_cols ? cols - col : segment_cols;
  return {row, col, uint32_t(height), uint32_t(width)};
}

bool inside(const Stream& stream, uint64_t segments, uint64_t size) {
  for (uint64_t i = 0; i < segments; ++i)
    if (stream.offsets[i] > stream.offsets[i + 1]) return false;
  return size >= kSlack && stream.offsets[segments] <= size - kSlack;
}

Result check_segment(const View& v, uint64_t segment) {
  for (uint32_t s = 0; s < v.streams; ++s) {
    const Stream& stream = v.stream[s];
    for (uint64_t part : {segment, stream.shared ? 0 : segment}) {
      uint64_t from = stream.offsets[part], to = stream.offsets[part + 1];
      uint32_t found = kernels().crc32c(0, stream.base + from, to - from);
      if (found != stream.checksums[part]) {
        Result r = failed(Status::checksum);
        r.stream = s;
        r.found = found;
        r.expected = stream.checksums[part];
        return r;
      }
      if (part == segment && !stream.shared) break;
    }
  }
  return Result();
}

namespace {

// 2^bits entries for each group of rows; where the layout pads with code 0, that is zero in the segment's groups.
Result check_codebook(const View& v, const Place& p, const Span& stream, Codebook& book) {
  const uint64_t groups = book.rows ? (v.rows - 1) / book.rows + 1 : 1, size = uint64_t{v.width} << book.bits;
  const uint32_t number = v.streams - 1;
  if (stream.size / size < groups) return failed(Status::too_short, number, stream.size, groups * size);
  if (stream.size != groups * size) return failed(Status::too_long, number, stream.size, groups * size);
  book.entries = stream.data;
  if (!v.coding.zero_first) return Result();
  const uint64_t first = book.rows ? p.row / book.rows : 0, last = book.rows ? (p.row + p.rows - 1) / book.rows : 0;
  for (uint64_t group = first; group <= last; ++group) {
    uint64_t entry = 0;
    memcpy(&entry, stream.data + group * size, v.width);
    if (entry) return failed(Status::out_of_range, number, entry, 0);
  }
  return Result();
}

}  // namespace

Result open(const View& v, uint64_t segment, bool always, bool flat, Workspace& work, Reader& r, Codebook& book) {
  if (v.checked && (always || !__atomic_load_n(&v.checked[segment], __ATOMIC_RELAXED))) {
    Result checked = check_segment(v, segment);
    if (!checked.ok()) return checked;
    __atomic_store_n(&v.checked[segment], uint8_t{1}, __ATOMIC_RELAXED);
  }
  Place p = place(v, segment);
  memset(&r, 0, sizeof r);
  r.rows = p.rows;
  r.cols = p.cols;
  r.width = v.width;
  r.bits = 8 * v.width;
  r.left = p.col;
  r.matrix_cols = v.cols;
  r.params = v.params;
  r.scratch = &work.scratch;
  book = {nullptr, v.coding.bits, v.coding.rows, p.row};
  if (book.bits) {
    r.width = 1;
    r.bits = book.bits;
  }
  for (uint32_t s = 0; s < v.streams; ++s) {
    const Stream& stream = v.stream[s];
    const uint64_t part = stream.shared ? 0 : segment;
    const uint8_t* data = stream.base + stream.offsets[part];
    uint64_t size = stream.offsets[part + 1] - stream.offsets[part];
    if (stream.shared && segment && stream.offsets[segment] != stream.offsets[segment + 1]) {
      Result r = failed(Status::too_long);
      r.stream = s;
      r.found = stream.offsets[segment + 1] - stream.offsets[segment];
      return r;
    }
    if (stream.code) {
      // No stream of a layout takes more than 16 bytes for each element (run_length has two u64 for a pair of eight-byte
      // values) and a pointer for each row; and no more room is made than the part says it needs.
      uint64_t limit = uint64_t(p.rows) * p.cols * 16 / stream.code->width + p.rows + 1, claimed = 0, items = 0;
      memcpy(&claimed, data, size < 4 ? 0 : 4);
      if (claimed < limit) limit = claimed;
      if (!work.coded[s].reserve(limit * stream.code->width + kSlack)) return failed(Status::no_memory);
      Result decoded = kernels().huffman_decode(*stream.code, data, size, limit, work.coded[s].data, &items);
      if (!decoded.ok()) {
        decoded.stream = s;
        return decoded;
      }
      data = work.coded[s].data;
      size = items * stream.code->width;
    } else if (book.bits && book.bits < 8 && s == v.coding.codes) {
      // As many whole codes as there are bits; those that the layout does not ask for must be the padding of a byte.
      const uint64_t codes = size * 8 / book.bits, rest = size * 8 - codes * book.bits;
      if (codes > uint64_t(p.rows) * p.cols + 8)
        return failed(Status::too_long, s, size, (uint64_t(p.rows) * p.cols * book.bits + 7) / 8);
      if (!work.coded[s].reserve(codes + 8 + kSlack)) return failed(Status::no_memory);
      if (rest && data[size - 1] >> (8 - rest)) return failed(Status::padding, s, data[size - 1], 0);
      kernels().spread_codes(data, codes, book.bits, work.coded[s].data);
      data = work.coded[s].data;
      size = codes;
      r.spare[s] = (7 - rest) / book.bits;
    }
    r.stream[s] = {data, size};
  }
  if (book.bits) {
    Result found = check_codebook(v, p, r.stream[v.streams - 1], book);
    if (!found.ok()) return found;
  }
  const LayoutKernels& layout = kernels().layouts[uint32_t(v.layout)];
  // Rows of other groups must be told apart.
  flat = flat && (!book.rows || p.row / book.rows == (p.row + p.rows - 1) / book.rows);
  if (flat && layout.flat(v.params)) {
    r.cols = r.rows * r.cols;
    r.rows = 1;
  }
  return layout.open(r);
}

}  // namespace codec
