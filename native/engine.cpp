// Walking segments: checking, decoding, multiplying, listing entries and changing the layout.
#include "engine.hpp"

#include <cstdlib>
#include <cstring>

#include "pool.hpp"
#include "workspace.hpp"

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

namespace {

Place place(const View& v, uint64_t segment) {
  return codec::place(v.rows, v.cols, v.segment_rows, v.segment_cols, segment);
}

uint64_t segment_of(const View& v, uint64_t element) {
  uint64_t across = (v.cols - 1) / v.segment_cols + 1;
  return element / v.cols / v.segment_rows * across + element % v.cols / v.segment_cols;
}

// Tasks hand their first failure to whoever started them: the lowest segment's, whatever the threads did.
struct Failure {
  Result result;
  bool set = false;
  int lock = 0;

  void report(Result r, uint64_t segment) {
    r.segment = uint32_t(segment);
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {
    }
    if (!set || r.segment < result.segment) result = r;
    set = true;
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
  }
};

Result failed(Status status) {
  Result r;
  r.status = status;
  return r;
}

Result failed(Status status, uint32_t stream, uint64_t found, uint64_t expected) {
  Result r = failed(status);
  r.stream = stream;
  r.found = found;
  r.expected = expected;
  return r;
}

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

// Checks a segment's parts where that is still to be done, brings its streams out of the entropy stage, and opens it.
// `flat`: as one row, where the layout does not mind.
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

// Reads a segment to its end, handing every panel to use(panel): with its values, or (`codes`) its codes, a byte each.
template <class Use>
Result walk(const View& v, Reader& r, const Codebook& book, bool codes, Use&& use) {
  const LayoutKernels& layout = kernels().layouts[uint32_t(v.layout)];
  while (r.row < r.rows) {
    Panel p = {};
    Result next = layout.next(r, p);
    if (!next.ok()) return next;
    if (book.bits && !codes) {
      uint8_t* values = reinterpret_cast<uint8_t*>(r.scratch->looked_up);
      kernels().look_up(p, book, v.width, values);
      p.values = values;
    }
    Status used = use(p);
    if (used != Status::ok) return failed(used);
  }
  return layout.close(r);
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
Result flatten(const View& v, uint64_t segment, uint64_t nonzero, bool codes, Workspace& work, Flat& flat) {
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
    if (p.form == Form::dense || p.padded) kernels().drop_zeros(p, width, nonzero, work.packed, work.scratch);
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

namespace {

const Products<float>& products(const Kernels& k, float) { return k.f32; }
const Products<double>& products(const Kernels& k, double) { return k.f64; }
const Products<int64_t>& products(const Kernels& k, int64_t) { return k.i64; }
const Products<int32_t>& products(const Kernels& k, int32_t) { return k.i32; }

struct Range {
  uint64_t from, to;
};

// A product's x as its kernels read it.
struct Operand {
  Buffer padded, ordered;
  const void* x = nullptr;  // (n, batch); a single column goes on with zeros to whole mask words from any position
  const float* in_order = nullptr;  // that column in the order that bf16's dot products want, if they will be used
  bool finite = true;               // no infinity or NaN in it
};

template <class T, class Bits>
bool all_finite(const void* x, uint64_t n, Bits infinity) {
  const T* items = static_cast<const T*>(x);
  Bits found = 0;
  for (uint64_t i = 0; i < n; ++i) {
    Bits bits;
    memcpy(&bits, items + i, sizeof(bits));
    found |= Bits((bits & infinity) == infinity);
  }
  return !found;
}

bool prepare(const Product& w, uint64_t n, Operand& operand) {
  operand.x = w.x;
  if (w.acc == Type::f32) operand.finite = all_finite<float>(w.x, n * w.batch, uint32_t{0x7F800000});
  if (w.acc == Type::f64) operand.finite = all_finite<double>(w.x, n * w.batch, uint64_t{0x7FF0000000000000});
  if (w.batch > 1) return true;
  const uint64_t width = w.acc == Type::f32 || w.acc == Type::i32 ? 4 : 8, room = words(n) * 64 + 64;
  if (!operand.padded.reserve(room * width)) return false;
  memcpy(operand.padded.data, w.x, n * width);
  memset(operand.padded.data + n * width, 0, (room - n) * width);
  operand.x = operand.padded.data;
  if (w.value != Type::bf16 || w.acc != Type::f32 || !operand.finite) return true;
  if (!operand.ordered.reserve(room * sizeof(float))) return false;
  float* ordered = reinterpret_cast<float*>(operand.ordered.data);
  kernels().pack_bf16_dot(static_cast<const float*>(w.x), n, ordered);
  operand.in_order = ordered;
  return true;
}

// One panel into y, for the batch columns [batch.from, batch.to).
template <class T>
Status multiply_panel(const View& v, const Product& w, const Operand& x, const Place& at, Range batch, Panel& p,
                      Workspace& work) {
  const Kernels& k = kernels();
  const bool dot = p.columns == w.transposed;
  const uint64_t row = at.row + p.row, column = at.col + p.column;
  const uint64_t in_at = w.transposed ? row : column, out_at = w.transposed ? column : row;
  const T* in = static_cast<const T*>(x.x) + in_at * w.batch;
  T* out = static_cast<T*>(w.y) + out_at * w.batch;
  const bool single = w.batch == 1 && x.finite && p.form == Form::mask && w.acc == Type::f32;
  if (single && w.value == Type::bf16 && (!dot || in_at % 64 == 0)) {
    if (dot)
      k.dot_mask_bf16(p, x.in_order + in_at, reinterpret_cast<float*>(out));
    else
      k.axpy_mask_bf16(p, reinterpret_cast<const float*>(in), reinterpret_cast<float*>(out));
    return Status::ok;
  }
  // In every layout a zero weight contributes nothing, also against an infinity or a NaN.
  if (!x.finite && (p.form == Form::dense || p.padded)) k.drop_zeros(p, v.width, w.nonzero, work.packed, work.scratch);
  if (w.value != w.acc || p.form != Form::mask || !single) {
    Status converted = k.convert_values(w.value, p.values, p.count, w.acc, work.scratch.values, w.limit);
    if (converted != Status::ok) return converted;
    p.values = reinterpret_cast<const uint8_t*>(work.scratch.values);
  }
  if (single) {
    if (dot)
      k.dot_mask_f32(p, reinterpret_cast<const float*>(in), reinterpret_cast<float*>(out));
    else
      k.axpy_mask_f32(p, reinterpret_cast<const float*>(in), reinterpret_cast<float*>(out));
    return Status::ok;
  }
  const Products<T>& ops = products(k, T());
  const T* values = reinterpret_cast<const T*>(p.values);
  if (p.form == Form::mask) k.index_panel(p, work.scratch);
  if (p.form == Form::dense)
    (dot ? ops.dot_dense : ops.axpy_dense)(p, values, in + batch.from, w.batch, out + batch.from, w.batch,
                                           batch.to - batch.from);
  else
    (dot ? ops.dot_index : ops.axpy_index)(p, values, in + batch.from, w.batch, out + batch.from, w.batch,
                                           batch.to - batch.from);
  return Status::ok;
}

Result multiply_segment(const View& v, const Product& w, const Operand& x, uint64_t segment, Range batch,
                        Workspace& work) {
  Reader r;
  Codebook book;
  Result opened = open(v, segment, false, false, work, r, book);
  if (!opened.ok()) return opened;
  const Place at = place(v, segment);
  return walk(v, r, book, false, [&](Panel& p) {
    switch (w.acc) {
      case Type::f64:
        return multiply_panel<double>(v, w, x, at, batch, p, work);
      case Type::i64:
        return multiply_panel<int64_t>(v, w, x, at, batch, p, work);
      case Type::i32:
        return multiply_panel<int32_t>(v, w, x, at, batch, p, work);
      default:
        return multiply_panel<float>(v, w, x, at, batch, p, work);
    }
  });
}

}  // namespace

// Threads own bands of rows, or columns of the batch: never partial sums, so results do not depend on their number.
Result multiply(const View& v, const Product& w, uint64_t first, uint64_t last, uint32_t threads) {
  if (first == last || w.batch == 0) return Result();
  Operand x;
  if (!prepare(w, w.transposed ? v.rows : v.cols, x)) return failed(Status::no_memory);
  const uint64_t across = (v.cols - 1) / v.segment_cols + 1;
  const uint64_t bands = (last - 1) / across - first / across + 1;
  const bool by_band = !w.transposed && (w.batch == 1 || bands >= threads);
  struct Context {
    const View& v;
    const Product& w;
    const Operand& x;
    uint64_t first, last, across, tasks;
    bool by_band;
    Failure failure;
  } context{v, w, x, first, last, across, by_band ? bands : threads < w.batch ? threads : w.batch, by_band, {}};
  parallel(
      uint32_t(context.tasks), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Range batch = {0, c.w.batch}, part = {c.first, c.last};
        if (c.by_band) {
          uint64_t band = c.first / c.across + task;
          if (band * c.across > part.from) part.from = band * c.across;
          if ((band + 1) * c.across < part.to) part.to = (band + 1) * c.across;
        } else {
          batch = {c.w.batch * task / c.tasks, c.w.batch * (uint64_t(task) + 1) / c.tasks};
        }
        Workspace& work = workspace();
        for (uint64_t segment = part.from; segment < part.to; ++segment) {
          Result r = multiply_segment(c.v, c.w, c.x, segment, batch, work);
          if (!r.ok()) {
            c.failure.report(r, segment);
            break;
          }
        }
        work.trim();
      },
      &context);
  return context.failure.result;
}

Result entries(const View& v, uint64_t nonzero, uint64_t first, uint64_t last, int64_t* starts, int64_t* indices,
               uint8_t* values, uint64_t capacity, uint64_t* count) {
  Workspace& work = workspace();
  for (uint64_t segment = first; segment < last; ++segment) {
    Flat flat;
    Result r = flatten(v, segment, nonzero, false, work, flat);
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

Result transcode(const View& v, uint64_t nonzero, uint64_t first, uint64_t last, Layout layout, const Params& params,
                 Streams* streams, const uint8_t* codes, uint32_t threads) {
  struct Context {
    const View& v;
    uint64_t nonzero, first;
    Layout layout;
    const Params& params;
    Streams* streams;
    const uint8_t* codes;
    Failure failure;
  } context{v, nonzero, first, layout, params, streams, codes, {}};
  parallel(
      uint32_t(last - first), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Workspace& work = workspace();
        uint64_t segment = c.first + task;
        Flat flat = {};
        Result r = flatten(c.v, segment, c.codes ? 255 : c.nonzero, c.codes, work, flat);
        if (r.ok() && c.codes)
          for (uint64_t i = 0; i < flat.count; ++i) work.values.data[i] = c.codes[work.values.data[i]];
        if (r.ok()) r.status = write_segment(c.layout, c.params, flat, c.streams, segment, work);
        if (!r.ok()) c.failure.report(r, segment);
        work.trim();
      },
      &context);
  return context.failure.result;
}

Result measure(const View& v, uint64_t nonzero, uint64_t first, uint64_t last, const Question& q, const Measures& m,
               uint32_t threads) {
  struct Context {
    const View& v;
    uint64_t nonzero;
  } context{v, nonzero};
  const Geometry g = {v.rows, v.cols, v.segment_rows, v.segment_cols, v.width, nonzero, 0};
  return measure_segments(
      g, first, last, q, m, threads,
      [](void* at, uint64_t segment, Workspace& work, Flat& flat, Tally&) {
        const Context& c = *static_cast<Context*>(at);
        return flatten(c.v, segment, c.nonzero, false, work, flat);
      },
      &context);
}

}  // namespace codec
