// x of a product: whether it is finite, and what product kernels make of it, once for all segments.
#include "operand.hpp"

#include <new>

namespace codec {

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

// The memory that the last operand was prepared in serves the next one: asked for anew from tile to tile it costs page
// faults, and an allocator keeps several times as much of it.
constexpr uint64_t kMostKept = 4 << 20;
Buffer* kept = nullptr;

void trade(Buffer& one, Buffer& other) {
  uint8_t* data = one.data;
  const uint64_t capacity = one.capacity;
  one.data = other.data;
  one.capacity = other.capacity;
  other.data = data;
  other.capacity = capacity;
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

Operand::~Operand() { keep(ready_[0].x); }

const void* Operand::prepared(Prepare by, uint64_t tile) {
  if (!by) return x;
  while (__atomic_exchange_n(&lock_, 1, __ATOMIC_ACQUIRE)) {
  }
  const void* found = nullptr;
  const uint64_t columns = tile ? (batch + tile - 1) / tile * tile : batch;
  if (!ready_[0].by) take_kept(ready_[0].x);
  for (auto& entry : ready_) {
    if (!entry.by && entry.x.reserve(tiled_rows(n) * columns * item_bytes(accumulator))) {
      by(x, n, batch, entry.x.data);
      entry.by = by;
    }
    if (entry.by == by) found = entry.x.data;
    if (found || !entry.by) break;
  }
  __atomic_store_n(&lock_, 0, __ATOMIC_RELEASE);
  return found;
}

Operand* new_operand(Type accumulator, const void* x, uint64_t n, uint64_t batch) {
  Operand* operand = new (std::nothrow) Operand;
  if (!operand) return nullptr;
  operand->x = x;
  operand->n = n;
  operand->batch = batch;
  operand->accumulator = accumulator;
  if (accumulator == Type::f32) operand->finite = all_finite<float>(x, n * batch, uint32_t{0x7F800000});
  if (accumulator == Type::f64) operand->finite = all_finite<double>(x, n * batch, uint64_t{0x7FF0000000000000});
  return operand;
}

void free_operand(Operand* operand) { delete operand; }

bool was_used(const Operand* operand, uint32_t row) {
  return row < kMostRows && __atomic_load_n(&operand->used[row], __ATOMIC_RELAXED);
}

}  // namespace codec
