// What product kernels made of a product's x.
#pragma once
#include "../product.hpp"
#include "../workspace.hpp"

namespace codec {

using Prepare = decltype(ProductKernel::prepare);
constexpr uint32_t kPrepared = 8;  // ways to prepare x that one product uses at most

struct Operand {
  const void* x = nullptr;
  Strides at = {};
  Window window = {};  // images: 0 where x is an array
  uint64_t n = 0, batch = 0;
  Type item = Type::f32, accumulator = Type::f32;  // of x as it lies there, and in strips
  bool finite = true;                              // no infinity or NaN in it

  // Whether x can be prepared as such items. Not for pixels under a filter.
  bool holds(Items);

  uint32_t strip() const { return strip_of(batch); }
  // x in strips, or as a row prepares each; once for the operand whoever asks first. Null: no memory.
  const void* prepared(const ProductKernel&);
  // Of each row of x, whether it holds anything but zeros; null where most do, so that to pass over the others brings
  // little. Not for pixels under a filter, nor for several threads at once.
  const uint8_t* live();
  // Columns from `left` on, the first of a strip, in strips behind each other at `to`: strip_rows(n) rows of each, and
  // kTileCols rows behind the last.
  void lay_out(uint64_t left, uint64_t columns, uint8_t* to) const;
  uint64_t laid_out_bytes(uint64_t columns) const;

  ~Operand();

  uint8_t used[kMostRows] = {};  // rows of Kernels::products

 private:
  const void* strips();

  Buffer strips_;
  enum class Answer : uint8_t { none, no, yes } holds_[kItems] = {};
  Buffer live_;
  bool laid_out_ = false, counted_ = false, sparse_ = false;
  struct {
    Prepare by = nullptr;
    Buffer x;
  } ready_[kPrepared];
  int lock_ = 0;
};

}  // namespace codec
