// x of a product: whether it is finite, and what product kernels make of it, once for all segments.
#include "operand.hpp"

#include <new>
#include <utility>

#include "items.hpp"
#include "tiles.hpp"

namespace codec {

namespace {

// What lies side by side as few long lines as can be, `batch` items each.
void lengthen(Strides& at, uint64_t& n, uint64_t& batch) {
  if (at.column != 1 || batch == 1) {  // the other way round
    at = {at.column, at.row};
    std::swap(n, batch);
  }
  if (at.column == 1 && at.row == int64_t(batch)) {
    batch *= n;
    n = 1;
  }
}

bool is_finite(Type type, const void* x, Strides at, uint64_t n, uint64_t batch) {
  lengthen(at, n, batch);
  const int64_t item = item_bytes(type);
  bool finite = true;
  for (uint64_t i = 0; i < n; ++i) {
    const uint8_t* row = static_cast<const uint8_t*>(x) + int64_t(i) * at.row * item;
    finite &= at.column == 1 ? all_finite<true>(type, row, item, batch)
                             : all_finite<false>(type, row, at.column * item, batch);
  }
  return finite;
}

// The same of pixels: as many of them at a time as lie side by side.
bool is_finite(Type type, const void* pixels, const Window& w) {
  uint64_t size[4] = {w.images, w.channels, w.height, w.width};
  const int64_t step[4] = {w.image, w.channel, w.line, w.pixel};
  for (int i = 2; i >= 0 && step[i] == w.pixel * int64_t(size[3]); --i) {
    size[3] *= size[i];
    size[i] = 1;
  }
  bool finite = true;
  for (uint64_t i = 0; i < size[0]; ++i)
    for (uint64_t j = 0; j < size[1] && finite; ++j) {
      const int64_t first = int64_t(i) * step[0] + int64_t(j) * step[1];
      finite = is_finite(type, static_cast<const uint8_t*>(pixels) + first * int64_t{item_bytes(type)},
                         {step[2], step[3]}, size[2], size[3]);
    }
  return finite;
}

// Whether every item, the bits of an f32 or bf16, is a number of those that bf16 numbers stand for (kLeastX), with no bit of
// `tail`.
template <class Bits, Bits tail>
bool all_moderate(const void* x, Strides at, uint64_t n, uint64_t batch) {
  constexpr Bits kLeast = twice_bits<Bits>(kLeastX), kMost = twice_bits<Bits>(kMostX);
  if (at.column != 1) {
    at = {at.column, at.row};
    std::swap(n, batch);
  }
  Bits found = 0;
  for (uint64_t i = 0; i < n && !found; ++i)
    for (uint64_t j = 0; j < batch; ++j) {
      Bits bits;
      memcpy(&bits, static_cast<const Bits*>(x) + int64_t(i) * at.row + int64_t(j) * at.column, sizeof(bits));
      const Bits twice = Bits(bits << 1);
      found |= (bits & tail) | Bits((twice != 0) & (Bits(twice - kLeast) >= Bits(kMost - kLeast)));
    }
  return !found;
}

bool all_bytes(const void* x, Strides at, uint64_t n, uint64_t batch) {
  bool found = false;
  for (uint64_t i = 0; i < n && !found; ++i)
    for (uint64_t j = 0; j < batch; ++j) {
      const int32_t item = static_cast<const int32_t*>(x)[int64_t(i) * at.row + int64_t(j) * at.column];
      found |= item != int8_t(item);
    }
  return !found;
}

// Of each row of x, whether one of its items has a bit of `magnitude`; returns how many have.
template <class Bits>
uint64_t find_live(const void* x, Strides at, uint64_t n, uint64_t batch, Bits magnitude, uint8_t* live) {
  const uint8_t* items = static_cast<const uint8_t*>(x);
  const auto has = [&](int64_t i) {
    Bits bits;
    memcpy(&bits, items + i * int64_t(sizeof(Bits)), sizeof(Bits));
    return (bits & magnitude) != 0;
  };
  uint64_t count = 0;
  if (batch == 1 && at.row == 1) {  // several at a time
    for (uint64_t i = 0; i < n; ++i) live[i] = has(int64_t(i));
    for (uint64_t i = 0; i < n; ++i) count += live[i];
    return count;
  }
  for (uint64_t i = 0; i < n; ++i) {
    bool found = false;
    for (uint64_t j = 0; j < batch && !found; ++j) found = has(int64_t(i) * at.row + int64_t(j) * at.column);
    live[i] = found;
    count += found;
  }
  return count;
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

bool Operand::holds(Items items) {
  if (items == Items::sums) return true;
  Answer& known = holds_[uint32_t(items)];
  if (known == Answer::none) {
    bool found = false;
    if (window.images)
      found = false;
    else if (items == Items::i8)
      found = item == Type::i32 && all_bytes(x, at, n, batch);
    else if (item == Type::f32)
      found = items == Items::bf16 ? all_moderate<uint32_t, 0xFFFF>(x, at, n, batch)
                                   : all_moderate<uint32_t, 0>(x, at, n, batch);
    else if (item == Type::bf16)
      found = all_moderate<uint16_t, 0>(x, at, n, batch);
    else  // every finite f16
      found = item == Type::f16 && items == Items::parts && finite;
    known = found ? Answer::yes : Answer::no;
  }
  return known == Answer::yes;
}

uint64_t Operand::laid_out_bytes(uint64_t columns) const {
  const uint64_t strips = (columns + strip() - 1) / strip();
  return (strips * strip_rows(n) + kTileCols) * strip() * item_bytes(accumulator);
}

void Operand::lay_out(uint64_t left, uint64_t columns, uint8_t* to) const {
  const uint64_t behind = kTileCols * strip() * item_bytes(accumulator);
  if (window.images)
    kernels().unroll(accumulator, item, x, window, left, columns, strip(), strip_rows(n), to);
  else {
    const uint8_t* from = static_cast<const uint8_t*>(x) + int64_t(left) * at.column * int64_t{item_bytes(item)};
    kernels().to_strips({accumulator, item, n, columns, strip(), strip_rows(n), const_cast<uint8_t*>(from), at, to});
  }
  memset(to + laid_out_bytes(columns) - behind, 0, behind);
}

const void* Operand::strips() {
  if (batch == 1 && at.row == 1 && item == accumulator && !window.images) return x;
  if (laid_out_) return strips_.data;
  take_kept(strips_);
  if (!strips_.reserve(laid_out_bytes(batch))) return nullptr;
  lay_out(0, batch, strips_.data);
  laid_out_ = true;
  return strips_.data;
}

const uint8_t* Operand::live() {
  if (window.images) return nullptr;
  if (!counted_) {
    counted_ = true;
    if (!live_.reserve(n)) return nullptr;
    const uint64_t magnitude = magnitude_of(item), bytes = item_bytes(item),
                   found = bytes == 2   ? find_live(x, at, n, batch, uint16_t(magnitude), live_.data)
                           : bytes == 4 ? find_live(x, at, n, batch, uint32_t(magnitude), live_.data)
                                        : find_live(x, at, n, batch, magnitude, live_.data);
    sparse_ = found <= n / 4 * 3;
  }
  return sparse_ ? live_.data : nullptr;
}

const void* Operand::prepared(const ProductKernel& row) {
  const Prepare by = row.prepare;
  while (__atomic_exchange_n(&lock_, 1, __ATOMIC_ACQUIRE)) {
  }
  const void* found = strips();
  if (by && found) {
    const void* only = found;
    found = nullptr;
    // Of a column: of x in strips, and as it is prepared.
    const uint64_t wide = strip(), item = item_bytes(accumulator), from = strip_rows(n) * item,
                   to = column_bytes(row, n);
    for (auto& entry : ready_) {
      const uint64_t strips = (batch + wide - 1) / wide;
      if (!entry.by && entry.x.reserve((strips * to + 2 * kTileCols * item) * wide)) {
        for (uint64_t left = 0; left < batch; left += wide)
          by(static_cast<const uint8_t*>(only) + left * from, n, wide, batch - left < wide ? batch - left : wide,
             entry.x.data + left * to);
        entry.by = by;
      }
      if (entry.by == by) found = entry.x.data;
      if (found || !entry.by) break;
    }
  }
  __atomic_store_n(&lock_, 0, __ATOMIC_RELEASE);
  return found;
}

Operand* new_operand(Type item, Type accumulator, const void* x, Strides at, uint64_t n, uint64_t batch) {
  Operand* operand = new (std::nothrow) Operand;
  if (!operand) return nullptr;
  operand->x = x;
  operand->at = at;
  operand->n = n;
  operand->batch = batch;
  operand->item = item;
  operand->accumulator = accumulator;
  operand->finite = is_finite(item, x, at, n, batch);
  return operand;
}

Operand* new_operand(Type item, Type accumulator, const void* pixels, const Window& window) {
  Operand* operand = new (std::nothrow) Operand;
  if (!operand) return nullptr;
  operand->x = pixels;
  operand->window = window;
  operand->n = window.rows();
  operand->batch = window.columns();
  operand->item = item;
  operand->accumulator = accumulator;
  Window& w = operand->window;
  if (w.rows() == w.channels && w.output[0] == w.height && w.output[1] == w.width && w.stride[0] == 1 &&
      w.stride[1] == 1 && w.line == int64_t(w.width) * w.pixel) {  // an image is one line
    w.width *= w.height;
    w.output[1] = w.width;
    w.height = w.output[0] = 1;
  }
  operand->finite = is_finite(item, pixels, w);
  return operand;
}

void free_operand(Operand* operand) { delete operand; }

bool was_used(const Operand* operand, uint32_t row) {
  return row < kMostRows && __atomic_load_n(&operand->used[row], __ATOMIC_RELAXED);
}

}  // namespace codec
