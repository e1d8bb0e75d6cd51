// x of a product: whether it is finite, and what product kernels make of it, once for all segments.
#include "operand.hpp"

#include <new>
#include <utility>

namespace codec {

namespace {

// Whether one of n items, `step` apart, is an infinity or a NaN. Items side by side are compared several at a time.
template <bool side_by_side, class T, class Bits>
bool any_infinite(const T* x, int64_t step, uint64_t n, Bits infinity) {
  Bits found = 0;
  for (uint64_t i = 0; i < n; ++i) {
    Bits bits;
    memcpy(&bits, x + (side_by_side ? int64_t(i) : int64_t(i) * step), sizeof(bits));
    found |= Bits((bits & infinity) == infinity);
  }
  return found;
}

template <class T, class Bits>
bool all_finite(const T* x, Strides at, uint64_t n, uint64_t batch, Bits infinity) {
  if (at.column != 1 || batch == 1) {  // the other way round, so that what lies side by side is read side by side
    at = {at.column, at.row};
    std::swap(n, batch);
  }
  bool found = false;
  for (uint64_t i = 0; i < n; ++i) {
    const T* row = x + int64_t(i) * at.row;
    found |= at.column == 1 ? any_infinite<true>(row, 1, batch, infinity)
                            : any_infinite<false>(row, at.column, batch, infinity);
  }
  return !found;
}

bool all_finite(Type type, const void* x, Strides at, uint64_t n, uint64_t batch) {
  if (type == Type::f32) return all_finite(static_cast<const float*>(x), at, n, batch, uint32_t{0x7F800000});
  if (type == Type::f64) return all_finite(static_cast<const double*>(x), at, n, batch, uint64_t{0x7FF0000000000000});
  return true;
}

// The memory that the last operand was prepared in serves the next one: asked for anew from strip to strip it costs page
// faults, and an allocator keeps several times as much of it.
constexpr uint64_t kMostKept = 4 << 20;
Buffer* kept = nullptr;

void trade(Buffer& one, Buffer& other) {
  std::swap(one.data, other.data);
  std::swap(one.capacity, other.capacity);
}

void take_kept(Buffer& to) {
  Buffer* found = __atomic_exchange_n(&kept, nullptr, __ATOMIC_ACQ_REL);
  if (found) trade(*found, to);
  delete found;
}

void keep(Buffer& from) {
  if (from.capacity == 0 || from.capacity > kMostKept) return;
  Buffer* buffer = new (std::nothrow) Buffer;
  if (!buffer) return;
  trade(from, *buffer);
  delete __atomic_exchange_n(&kept, buffer, __ATOMIC_ACQ_REL);
}

}  // namespace

Operand::~Operand() { keep(strips_); }

uint64_t Operand::laid_out_bytes(uint64_t columns) const {
  const uint64_t strips = (columns + strip() - 1) / strip();
  return (strips * strip_rows(n) + kTileCols) * strip() * item_bytes(accumulator);
}

void Operand::lay_out(uint64_t left, uint64_t columns, uint8_t* to) const {
  const uint64_t item = item_bytes(accumulator), behind = kTileCols * strip() * item;
  if (window.images)
    kernels().unroll(accumulator, x, window, left, columns, strip(), strip_rows(n), to);
  else {
    const uint8_t* from = static_cast<const uint8_t*>(x) + int64_t(left) * at.column * int64_t(item);
    kernels().to_strips({accumulator, n, columns, strip(), strip_rows(n), const_cast<uint8_t*>(from), at, to});
  }
  memset(to + laid_out_bytes(columns) - behind, 0, behind);
}

const void* Operand::strips() {
  if (batch == 1 && at.row == 1 && !window.images) return x;
  if (laid_out_) return strips_.data;
  take_kept(strips_);
  if (!strips_.reserve(laid_out_bytes(batch))) return nullptr;
  lay_out(0, batch, strips_.data);
  laid_out_ = true;
  return strips_.data;
}

const void* Operand::prepared(Prepare by) {
  while (__atomic_exchange_n(&lock_, 1, __ATOMIC_ACQUIRE)) {
  }
  const void* found = strips();
  if (by && found) {
    const void* only = found;
    found = nullptr;
    for (auto& entry : ready_) {
      if (!entry.by && entry.x.reserve(prepared_rows(n) * strip() * item_bytes(accumulator))) {
        by(only, n, strip(), batch, entry.x.data);
        entry.by = by;
      }
      if (entry.by == by) found = entry.x.data;
      if (found || !entry.by) break;
    }
  }
  __atomic_store_n(&lock_, 0, __ATOMIC_RELEASE);
  return found;
}

Operand* new_operand(Type accumulator, const void* x, Strides at, uint64_t n, uint64_t batch) {
  Operand* operand = new (std::nothrow) Operand;
  if (!operand) return nullptr;
  operand->x = x;
  operand->at = at;
  operand->n = n;
  operand->batch = batch;
  operand->accumulator = accumulator;
  operand->finite = all_finite(accumulator, x, at, n, batch);
  return operand;
}

Operand* new_operand(Type accumulator, const void* pixels, const Window& window) {
  Operand* operand = new (std::nothrow) Operand;
  if (!operand) return nullptr;
  operand->x = pixels;
  operand->window = window;
  operand->n = window.rows();
  operand->batch = window.columns();
  operand->accumulator = accumulator;
  for (uint64_t image = 0; image < window.images; ++image)
    for (uint64_t channel = 0; channel < window.channels && operand->finite; ++channel) {
      const int64_t first = int64_t(image) * window.image + int64_t(channel) * window.channel;
      operand->finite = all_finite(accumulator, static_cast<const uint8_t*>(pixels) + first * item_bytes(accumulator),
                                   {window.line, window.pixel}, window.height, window.width);
    }
  return operand;
}

void free_operand(Operand* operand) { delete operand; }

bool was_used(const Operand* operand, uint32_t row) {
  return row < kMostRows && __atomic_load_n(&operand->used[row], __ATOMIC_RELAXED);
}

}  // namespace codec
