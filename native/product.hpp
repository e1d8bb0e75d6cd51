// Products of a frame's segments with a vector, or with several side by side (a batch).
#pragma once
#include "contract.hpp"
#include "view.hpp"

namespace codec {

// A product's x, (n, batch), which must outlive it, and what product kernels made of it.
struct Operand;
// Of items of a type that widens to the accumulator's; null: no memory.
Operand* new_operand(Type item, Type accumulator, const void* x, Strides at, uint64_t n, uint64_t batch);
// The same of the pixels under a filter; the caller has proved that all of them are there.
Operand* new_operand(Type item, Type accumulator, const void* pixels, const Window&);
void free_operand(Operand*);
// Whether a row of Kernels::products has multiplied it so far.
bool was_used(const Operand*, uint32_t row);

struct Product {
  Type value, accumulator;  // of the weights; of the sums
  Type result;              // of y: the accumulator's or one that widens to it
  Operand* x;
  void* y;  // (m, batch)
  Strides at;
  Images images;             // that its columns lie in
  const void *scale, *bias;  // a factor and a term for each row of y, of the accumulator's type; null: none
  uint64_t batch;
  bool transposed;             // y += W^T x
  uint64_t limit;              // integers: the largest |weight| that cannot overflow a sum
  const ProductKernel* first;  // the row to take wherever a panel fits it; null: the table's order alone
};

// A row by its name; null: none.
const ProductKernel* find_product(const char* name);
// Whether a row can multiply some panel of the product.
bool can_run(const ProductKernel&, const Product&);
// Filters by their non-zero weights, over images: filters / groups of them see the channels of one group.
struct Filters {
  Type type, item;  // of sums, weights and bias, f32 or f64; of pixels and out, which widens to it
  Window window;    // over the channels of all groups
  const void* pixels;
  uint64_t groups, filters;
  uint64_t lines, line;           // of a channel with its padding
  const uint64_t* starts;         // filters + 1: where the weights of each begin
  const uint64_t* columns;        // of each weight, below channels / groups * kernel sizes
  const uint8_t *weights, *bias;  // bias: an item for each filter, or null
  uint8_t* out;                   // (images, filters, output), side by side
};
// False: no memory. Each thread takes that of one group's channels with their padding.
bool filter(const Filters&, uint32_t threads);

// Segments [first, last), in order and each once. Sums of which an earlier call has added a part are in y, which then has
// their type: a row of it is whole, scaled and with its bias, once all segments that it depends on were there.
Result multiply(const View&, const Product&, uint64_t first, uint64_t last, uint32_t threads);

// x W^T + bias, or x W + bias where transposed, of row-major arrays: x (batch, inputs), y (batch, outputs), bias (outputs,).
struct Rows {
  Type value, accumulator;  // of the weights; of the sums
  Type item, term;          // of x and y; of the bias: both widen to the accumulator's
  const void *x, *bias;     // bias: null for none
  void* y;
  uint64_t batch;
  bool transposed;
};
Result multiply_rows(const View&, const Rows&, uint32_t threads);

}  // namespace codec
