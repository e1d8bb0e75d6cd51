// What product kernels made of a product's x.
#pragma once
#include "../product.hpp"
#include "../workspace.hpp"

namespace codec {

using Prepare = void (*)(const void* x, uint64_t n, uint64_t batch, void* out);
constexpr uint32_t kPrepared = 8;  // ways to prepare x that one product uses at most

struct Operand {
  const void* x = nullptr;
  uint64_t n = 0, batch = 0;
  Type accumulator = Type::f32;
  bool finite = true;  // no infinity or NaN in it

  // x as `by` prepares it, in tiles of so many columns (0: one of them all), once for the operand whoever asks first;
  // null: no memory.
  const void* prepared(Prepare by, uint64_t tile);

  ~Operand();

  uint8_t used[kMostRows] = {};  // rows of Kernels::products

 private:
  struct {
    Prepare by = nullptr;
    Buffer x;
  } ready_[kPrepared];
  int lock_ = 0;
};

}  // namespace codec
