// Products: which kernel multiplies a panel, and the walk over a view's segments.
#include "../pool.hpp"
#include "../view/segment.hpp"
#include "operand.hpp"

namespace codec {

namespace {

struct Candidate {
  const ProductKernel* row;
  const void* x;  // as the row wants it; null until it is used
};

// The rows that may multiply panels of one form and direction, in the order in which they are asked.
struct Candidates {
  Candidate at[16];
  uint32_t n = 0;

  void add(const ProductKernel& row) {
    for (uint32_t i = 0; i < n; ++i)
      if (at[i].row->fits == row.fits) return;  // hidden by a row that fits the same panels
    if (n < 16) at[n++] = {&row, nullptr};
  }
  Candidate* find(const Panel& p, uint64_t first) {
    for (uint32_t i = 0; i < n; ++i)
      if (!at[i].row->fits || at[i].row->fits(p, first)) return &at[i];
    return nullptr;
  }
};

struct Choice {
  Candidates of[kForms][2];

  explicit Choice(const Product& w) {
    if (w.first) add(*w.first);
    for (uint32_t i = 0; i < kernels().product_count; ++i)
      if (can_run(kernels().products[i], w)) add(kernels().products[i]);
  }
  void add(const ProductKernel& row) { of[uint32_t(row.form)][uint32_t(row.direction)].add(row); }
};

// The bits of an item that tell whether it compares equal to zero.
uint64_t magnitude_of(Type type) {
  const uint32_t bits = 8 * item_bytes(type);
  const bool has_sign = type <= Type::e5m2;  // floats; of integers, any bit makes a value that is not zero
  return ~uint64_t{0} >> (64 - bits + (has_sign ? 1 : 0));
}

// Whether values can be read as the type of sums where they stand.
bool is_ready(const Product& w, const uint8_t* values) {
  const bool is_float =
      w.accumulator == Type::f32 || w.accumulator == Type::f64;  // integers are compared with the limit
  return is_float && w.value == w.accumulator && reinterpret_cast<uintptr_t>(values) % item_bytes(w.accumulator) == 0;
}

// Columns [from, to) of the batch.
struct Columns {
  uint64_t from, to;
};

// One panel of a segment at `at` into y.
Status multiply_panel(const View& v, const Product& w, const Place& at, Columns columns, Choice& choice, Panel& p,
                      Scratch& scratch) {
  const Kernels& k = kernels();
  const uint64_t row = at.row + p.row, column = at.col + p.column;
  const uint64_t x_at = w.transposed ? row : column, y_at = w.transposed ? column : row;
  const uint32_t direction = uint32_t(p.columns == w.transposed ? Direction::dot : Direction::axpy);
  // A zero weight contributes nothing, stored or not, in every layout, also against an infinity or a NaN.
  if (!w.x->finite) k.forms[uint32_t(p.form)].drop_zeros(p, v.width, magnitude_of(w.value), scratch);
  Candidate* found = choice.of[uint32_t(p.form)][direction].find(p, x_at);
  if (!found && k.forms[uint32_t(p.form)].to_index) {
    k.forms[uint32_t(p.form)].to_index(p, v.width, scratch);
    found = choice.of[uint32_t(p.form)][direction].find(p, x_at);
  }
  if (!found) return Status::out_of_range;
  if (!found->x) {
    found->x = w.x->prepared(found->row->prepare, found->row->tile);
    if (!found->x) return Status::no_memory;
    __atomic_store_n(&w.x->used[found->row - k.products], uint8_t{1}, __ATOMIC_RELAXED);
  }
  if (found->row->value == Type::any && !is_ready(w, p.values)) {
    const Status converted = k.convert_values(w.value, p.values, p.count, w.accumulator, scratch.values, w.limit);
    if (converted != Status::ok) return converted;
    p.values = reinterpret_cast<const uint8_t*>(scratch.values);
  }
  const uint64_t width = item_bytes(w.accumulator), tile = found->row->tile;
  const uint8_t* x = static_cast<const uint8_t*>(found->x);
  uint8_t* y = static_cast<uint8_t*>(w.y) + y_at * w.batch * width;
  if (!tile) {
    found->row->run(p, x + (x_at * w.batch + columns.from) * width, y + columns.from * width, w.batch,
                    columns.to - columns.from);
    return Status::ok;
  }
  for (uint64_t from = columns.from, end; from < columns.to; from = end) {
    end = (from / tile + 1) * tile < columns.to ? (from / tile + 1) * tile : columns.to;
    found->row->run(p, x + ((from / tile * tiled_rows(w.x->n) + x_at) * tile + from % tile) * width, y + from * width,
                    w.batch, end - from);
  }
  return Status::ok;
}

Result multiply_segment(const View& v, const Product& w, uint64_t segment, Columns columns, Choice& choice,
                        Workspace& work) {
  Reader r;
  Codebook book;
  const Result opened = open(v, segment, false, false, work, r, book);
  if (!opened.ok()) return opened;
  const Place at = v.grid.place(segment);
  return walk(v, r, book, false, [&](Panel& p) { return multiply_panel(v, w, at, columns, choice, p, work.scratch); });
}

}  // namespace

const ProductKernel* find_product(const char* name) {
  for (uint32_t i = 0; i < kernels().product_count; ++i)
    if (strcmp(kernels().products[i].name, name) == 0) return &kernels().products[i];
  return nullptr;
}

bool can_run(const ProductKernel& row, const Product& w) {
  return row.accumulator == w.accumulator && (row.value == Type::any || row.value == w.value) && row.least <= w.batch &&
         w.batch <= row.most && (!row.finite || w.x->finite);
}

// Threads own bands of rows, or columns of the batch: never partial sums, so results do not depend on their number.
Result multiply(const View& v, const Product& w, uint64_t first, uint64_t last, uint32_t threads) {
  if (first == last || w.batch == 0) return Result();
  const Result shared = open_shared(v, first, last, false);
  if (!shared.ok()) return shared;
  const uint64_t across = v.grid.across(), bands = (last - 1) / across - first / across + 1;
  const bool by_band = !w.transposed && (w.batch == 1 || bands >= threads);
  struct Context {
    const View& v;
    const Product& w;
    const Choice choice;
    uint64_t first, last, across, tasks;
    bool by_band;
    Failure failure;
  } context{v, w, Choice(w), first, last, across, by_band ? bands : threads < w.batch ? threads : w.batch, by_band, {}};
  parallel(
      uint32_t(context.tasks), threads,
      [](void* at, uint32_t task, uint32_t) {
        Context& c = *static_cast<Context*>(at);
        Columns columns = {0, c.w.batch};
        uint64_t from = c.first, to = c.last;
        if (c.by_band) {
          const uint64_t band = c.first / c.across + task;
          if (band * c.across > from) from = band * c.across;
          if ((band + 1) * c.across < to) to = (band + 1) * c.across;
        } else {
          columns = {c.w.batch * task / c.tasks, c.w.batch * (uint64_t{task} + 1) / c.tasks};
        }
        Choice choice = c.choice;
        Workspace& work = workspace();
        for (uint64_t segment = from; segment < to; ++segment) {
          const Result r = multiply_segment(c.v, c.w, segment, columns, choice, work);
          if (r.ok()) continue;
          c.failure.report(r, segment);
          break;
        }
        work.trim();
      },
      &context);
  return context.failure.result;
}

}  // namespace codec
