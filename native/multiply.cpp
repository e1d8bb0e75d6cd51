// Products of a view's segments with a vector or a batch of them.
#include <cstdlib>
#include <cstring>
#include <new>

#include "pool.hpp"
#include "segment.hpp"

namespace codec {

struct Operand {
  Buffer padded, ordered;
  const void* x = nullptr;          // a single column goes on with zeros to whole mask words from any position
  const float* in_order = nullptr;  // that column in the order that bf16's dot products want, if they will be used
  bool finite = true;               // no infinity or NaN in it
};

namespace {

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

bool prepare(Type value, Type acc, const void* x, uint64_t n, uint64_t batch, Operand& operand) {
  operand.x = x;
  if (acc == Type::f32) operand.finite = all_finite<float>(x, n * batch, uint32_t{0x7F800000});
  if (acc == Type::f64) operand.finite = all_finite<double>(x, n * batch, uint64_t{0x7FF0000000000000});
  if (batch != 1) return true;
  const uint64_t width = acc == Type::f32 || acc == Type::i32 ? 4 : 8, room = words(n) * 64 + 64;
  if (!operand.padded.reserve(room * width)) return false;
  memcpy(operand.padded.data, x, n * width);
  memset(operand.padded.data + n * width, 0, (room - n) * width);
  operand.x = operand.padded.data;
  if (value != Type::bf16 || acc != Type::f32 || !operand.finite) return true;
  if (!operand.ordered.reserve(room * sizeof(float))) return false;
  float* ordered = reinterpret_cast<float*>(operand.ordered.data);
  kernels().pack_bf16_dot(static_cast<const float*>(x), n, ordered);
  operand.in_order = ordered;
  return true;
}

}  // namespace

Operand* new_operand(Type value, Type acc, const void* x, uint64_t n, uint64_t batch) {
  Operand* operand = new (std::nothrow) Operand;
  if (!operand || prepare(value, acc, x, n, batch, *operand)) return operand;
  delete operand;
  return nullptr;
}

void free_operand(Operand* operand) { delete operand; }

namespace {

const Products<float>& products(const Kernels& k, float) { return k.f32; }
const Products<double>& products(const Kernels& k, double) { return k.f64; }
const Products<int64_t>& products(const Kernels& k, int64_t) { return k.i64; }
const Products<int32_t>& products(const Kernels& k, int32_t) { return k.i32; }

struct Range {
  uint64_t from, to;
};

// One panel into y, for the batch columns [batch.from, batch.to).
template <class T>
Status multiply_panel(const View& v, const Product& w, const Place& at, Range batch, Panel& p, Workspace& work) {
  const Kernels& k = kernels();
  const Operand& x = *w.x;
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

Result multiply_segment(const View& v, const Product& w, uint64_t segment, Range batch, Workspace& work) {
  Reader r;
  Codebook book;
  Result opened = open(v, segment, false, false, work, r, book);
  if (!opened.ok()) return opened;
  const Place at = place(v, segment);
  return walk(v, r, book, false, [&](Panel& p) {
    switch (w.acc) {
      case Type::f64:
        return multiply_panel<double>(v, w, at, batch, p, work);
      case Type::i64:
        return multiply_panel<int64_t>(v, w, at, batch, p, work);
      case Type::i32:
        return multiply_panel<int32_t>(v, w, at, batch, p, work);
      default:
        return multiply_panel<float>(v, w, at, batch, p, work);
    }
  });
}

}  // namespace

// Threads own bands of rows, or columns of the batch: never partial sums, so results do not depend on their number.
Result multiply(const View& v, const Product& w, uint64_t first, uint64_t last, uint32_t threads) {
  if (first == last || w.batch == 0) return Result();
  const uint64_t across = (v.cols - 1) / v.segment_cols + 1;
  const uint64_t bands = (last - 1) / across - first / across + 1;
  const bool by_band = !w.transposed && (w.batch == 1 || bands >= threads);
  struct Context {
    const View& v;
    const Product& w;
    uint64_t first, last, across, tasks;
    bool by_band;
    Failure failure;
  } context{v, w, first, last, across, by_band ? bands : threads < w.batch ? threads : w.batch, by_band, {}};
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
          Result r = multiply_segment(c.v, c.w, segment, batch, work);
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

}  // namespace codec
