// Products: which kernel multiplies a panel, and the walk over a view's segments.
#include "../pool.hpp"
#include "../view/segment.hpp"
#include "ahead.hpp"
#include "items.hpp"
#include "operand.hpp"

namespace codec {

namespace {

struct Candidate {
  const ProductKernel* row;
  const void* x;  // as the row wants it; null until a thread uses it, then the same for all
};

// The rows that may multiply panels of one form and direction, in the order in which they are asked.
struct Candidates {
  Candidate at[16];
  uint32_t n = 0;

  void add(const ProductKernel& row) {
    for (uint32_t i = 0; i < n; ++i)
      if (at[i].row->fits == row.fits && at[i].row->codes == row.codes) return;  // hidden: that fits the same panels
    if (n < 16) at[n++] = {&row, nullptr};
  }
  // Whether a row reads a panel's values as they are, or can once codes are spread.
  static bool reads(const ProductKernel& row, const Panel& p) {
    if (!p.entries) return row.codes == Codes::none;
    return row.codes == Codes::bytes || (row.codes == Codes::fours && p.packed == 4 && p.bit == 0);
  }
  Candidate* find(const Panel& p, uint64_t first) {
    for (uint32_t i = 0; i < n; ++i)
      if (reads(*at[i].row, p) && (!at[i].row->fits || at[i].row->fits(p, first))) return &at[i];
    return nullptr;
  }
};

// Panels in mask form with so many values in 16 positions go to batches as dense ones: the kernels by index read a row of x
// for each value, those of dense panels one for eight rows (Zen 4, 30 % zeros: .86 of the time for 8 columns, .75 for 32;
// with 50 % zeros 1.06 and .91, with 80 % twice the time). Lines that are columns would have to be turned, which takes more.
constexpr uint32_t kDenseFrom = 10;
// The same where pairs of bf16 weights are multiplied.
constexpr uint32_t kDensePairsFrom = 4;

struct Choice {
  Candidates of[kForms][2];
  bool codes = false;  // there is a row that reads codes
  uint32_t dense_from = kDenseFrom;

  explicit Choice(const Product& w) {
    const Kernels& k = kernels();
    if (w.first) add(*w.first);
    for (const ProductKernel* row = k.products; row != k.products + k.product_count; ++row)
      if (row->accumulator == w.accumulator && can_run(*row, w)) add(*row);  // most are for other sums
  }
  void add(const ProductKernel& row) {
    of[uint32_t(row.form)][uint32_t(row.direction)].add(row);
    codes = codes || row.codes != Codes::none;
    if (row.items != Items::sums && row.form == Form::dense) dense_from = kDensePairsFrom;
  }
};

// Whether values can be read as the type of sums where they stand.
bool is_ready(const Product& w, const uint8_t* values) {
  const bool is_float =
      w.accumulator == Type::f32 || w.accumulator == Type::f64;  // integers are compared with the limit
  return is_float && w.value == w.accumulator && reinterpret_cast<uintptr_t>(values) % item_bytes(w.accumulator) == 0;
}

// The codebooks of a segment, as kernels want them.
struct Entries {
  const Codebook& book;
  uint64_t group = ~uint64_t{0};  // whose entries are in the scratch

  // Sets p.entries where the rows of a panel of codes share a codebook that is small enough.
  Status give(const Product& w, uint32_t width, Panel& p, Scratch& scratch) {
    const uint64_t top = book.top + p.row, bottom = top + (p.columns ? p.length : p.lines) - 1;
    const uint64_t first = book.rows ? top / book.rows : 0, last = book.rows ? bottom / book.rows : 0;
    const uint32_t entries = 1u << book.bits;
    if (entries > kCodeEntries || first != last) return Status::ok;
    if (first != group) {
      uint8_t* to = reinterpret_cast<uint8_t*>(scratch.entries);
      const uint32_t size = entries * item_bytes(w.accumulator);
      const Status converted = kernels().convert_values(w.value, book.entries + first * entries * width, entries,
                                                        w.accumulator, to, w.limit);
      if (converted != Status::ok) return converted;
      for (uint32_t i = entries; i < kCodeEntries; i += entries) memcpy(to + i * item_bytes(w.accumulator), to, size);
      group = first;
    }
    p.entries = scratch.entries;
    return Status::ok;
  }
};

// Whether no entry of the codebooks of some rows is an infinity or a NaN.
bool is_finite(Type type, const Codebook& book, uint32_t width, const Place& at) {
  const uint64_t size = uint64_t{1} << book.bits, first = book.rows ? at.row / book.rows : 0,
                 last = book.rows ? (at.row + at.rows - 1) / book.rows : 0;
  return all_finite<true>(type, book.entries + first * size * width, width, (last - first + 1) * size);
}

// Columns [from, to) of the batch, and the sums of rows from `top` on, `height` of them in each strip. Whole strips, or a
// part of one that begins at a multiple of its width.
struct Columns {
  uint64_t from, to;
  uint64_t top, height;
  uint8_t* sums;
  // x of these columns in strips, the first of which begins at column `left`; null: all columns' are the operand's.
  const uint8_t* x;
  uint64_t left;
};

void to_dense(Panel& p, uint32_t width, Scratch& scratch) {
  Panel own = p;
  own.row = own.column = 0;
  uint8_t* to =
      reinterpret_cast<uint8_t*>(scratch.packed);  // free: what drops zeros, for infinities in x, is not dense
  kernels().forms[uint32_t(p.form)].expand(own, width, false, to, uint64_t{p.length} * width, scratch);
  p.form = Form::dense;
  p.count = p.lines * p.length;
  p.values = to;
}

// One panel of a segment at `at` into the sums.
Status multiply_panel(const View& v, const Product& w, const Place& at, const Columns& columns, Choice& choice,
                      Entries& entries, Panel& p, Scratch& scratch) {
  const Kernels& k = kernels();
  const FormKernels& form = k.forms[uint32_t(p.form)];
  const uint64_t row = at.row + p.row, column = at.col + p.column;
  const uint64_t x_at = w.transposed ? row : column, y_at = w.transposed ? column : row;
  const auto find = [&] {
    const Direction direction = p.columns == w.transposed ? Direction::dot : Direction::axpy;
    return choice.of[uint32_t(p.form)][uint32_t(direction)].find(p, x_at);
  };
  Candidate* found = nullptr;
  if (entries.book.bits) {
    const Status given = choice.codes ? entries.give(w, v.width, p, scratch) : Status::ok;
    if (given != Status::ok) return given;
    if (p.entries) found = find();
    if (p.packed && !(found && found->row->codes == Codes::fours)) k.spread_panel(p, scratch);
    if (!found) {
      form.look_up(p, entries.book, v.width, reinterpret_cast<uint8_t*>(scratch.looked_up));
      p.values = reinterpret_cast<const uint8_t*>(scratch.looked_up);
      p.entries = nullptr;
    }
  }
  // A zero weight contributes nothing, stored or not, in every layout, also against an infinity or a NaN.
  if (!w.x->finite) form.drop_zeros(p, v.width, magnitude_of(w.value), scratch);
  if (!found) found = find();
  if (!found && p.form == Form::mask && w.x->finite && !w.transposed && !p.columns &&
      16 * p.count >= choice.dense_from * p.lines * p.length) {
    to_dense(p, v.width, scratch);
    found = find();
  }
  if (!found && k.forms[uint32_t(p.form)].to_index) {
    k.forms[uint32_t(p.form)].to_index(p, v.width, scratch);
    found = find();
  }
  if (!found) return Status::out_of_range;
  // Rows that prepare x take all columns of it, the others the task's own where it has them.
  const uint8_t* own = found->row->prepare ? nullptr : columns.x;
  const uint64_t left = own ? columns.left : 0;
  const void* prepared = __atomic_load_n(&found->x, __ATOMIC_ACQUIRE);
  if (!prepared) {
    prepared = own ? w.x->x : w.x->prepared(*found->row);
    if (!prepared) return Status::no_memory;
    __atomic_store_n(&w.x->used[found->row - k.products], uint8_t{1}, __ATOMIC_RELAXED);
    __atomic_store_n(&found->x, prepared, __ATOMIC_RELEASE);
  }
  if (own) prepared = own;
  if (found->row->value == Type::any && !p.entries && !is_ready(w, p.values)) {
    const Status converted = k.convert_values(w.value, p.values, p.count, w.accumulator, scratch.values, w.limit);
    if (converted != Status::ok) return converted;
    p.values = reinterpret_cast<const uint8_t*>(scratch.values);
  }
  const uint64_t strip = w.x->strip(), item = item_bytes(w.accumulator), row_bytes = strip * item;
  // Of x as the row wants it: bytes from one column to the next in a strip, and between strips.
  const uint64_t x_item = found->row->items == Items::sums ? item : found->row->column,
                 x_column = column_bytes(*found->row, w.x->n);
  const uint8_t* x = static_cast<const uint8_t*>(prepared) + x_at * strip * bytes_of(*found->row);
  uint8_t* y = columns.sums + (y_at - columns.top) * row_bytes;
  for (uint64_t from = columns.from, end; from < columns.to; from = end, y += columns.height * row_bytes) {
    const uint64_t begin = from & ~(strip - 1), inside = from - begin;  // a strip is a power of two
    end = begin + strip < columns.to ? begin + strip : columns.to;
    found->row->run(p, x + (begin - left) * x_column + inside * x_item, y + inside * item, strip, end - from);
  }
  return Status::ok;
}

// `live`: of each row of x, whether it holds anything but zeros; null: read all that W holds.
Result multiply_segment(const View& v, const Product& w, uint64_t segment, const Columns& columns, const uint8_t* live,
                        Ahead& ahead, Choice& choice, Workspace& work) {
  const Place at = v.grid.place(segment);
  uint8_t* state = live ? v.checked + (segment - v.first) : nullptr;
  const uint8_t found = state ? __atomic_load_n(state, __ATOMIC_RELAXED) : kWhole;
  const bool known = found == kFinite;
  if (known && !memchr(live + at.row, 1, at.rows)) return Result();
  Reader r;
  Codebook book;
  const Result opened = open(v, segment, false, false, work, r, book);
  if (!opened.ok()) return opened;
  Entries entries = {book};
  r.in_place = w.x->finite && !book.bits && is_ready(w, r.stream[0].data);  // of dense, whose one stream are its values
  const auto multiply = [&](Panel& p) { return multiply_panel(v, w, at, columns, choice, entries, p, work.scratch); };
  if (known) {
    const LayoutKernels& layout = kernels().layouts[uint32_t(v.layout)];
    for (uint32_t row = 0; row < at.rows; ++row) {
      if (!live[at.row + row]) continue;
      Panel p = {};
      p.ahead = ahead.fetch();
      const Result taken = layout.row(r, row, p);
      if (!taken.ok()) return taken;
      const Status used = multiply(p);
      if (used != Status::ok) return failed(used);
    }
    return Result();
  }
  const bool look = state && found < kFinite;
  bool finite = !look || !book.bits || is_finite(w.value, book, v.width, at);
  const Result walked = walk(v, r, book, Wanted::stored, [&](Panel& p) {
    if (look && !book.bits) finite = finite && all_finite<true>(w.value, p.values, v.width, p.count);
    return multiply(p);
  });
  if (look && walked.ok()) __atomic_store_n(state, finite ? kFinite : kInfinite, __ATOMIC_RELAXED);
  return walked;
}

// A product cut into tasks: each owns rows and columns of y, never a part of a sum, so results do not depend on threads.
// Rows of a task are a band of segments side by side; all rows of y where W is transposed.
struct Work {
  const View& v;
  const Product& w;
  const uint8_t* live;  // see multiply_segment
  Choice choice;
  uint64_t first, last, across, bands, width;
  bool apart;         // each task puts its own columns of x into strips
  uint64_t together;  // bands of a task
  bool streaming;     // y goes past the cache
  Failure failure;

  uint64_t groups() const { return (w.batch + width - 1) / width; }
  uint64_t tasks() const { return (bands + together - 1) / together * groups(); }
  void run(uint64_t task);

 private:
  void run_band(uint64_t band, Columns& columns);
};

// Positions that 16 bits can say.
constexpr uint64_t kPositions = 1 << 16;
// The most bytes of a task's sums, so that they stay in the second-level cache.
constexpr uint64_t kBandBytes = 256 << 10;
// Where the matrix has so few bands of rows, a task puts its own columns into strips, about so many bytes, for all bands: they
// are still in the second-level cache when they are multiplied, and threads share that work too. Of more bands the weights
// would be read from memory too often; but the pixels under a filter are never laid out for all columns, however many.
constexpr uint64_t kFewBands = 2, kApartBytes = 512 << 10;
// Bytes of y from which on stores that bypass the cache pay. A smaller one is still in the last cache when it is read next (of 4.8
// MB, Zen 4: .57 ms past it, .43 ms into it; 14 MB: 2.0 and 2.8).
constexpr uint64_t kStreamed = 8 << 20;
// Bytes of weights, times the columns up to 8, from which on a second thread pays.
constexpr uint64_t kWorthTwo = 70 << 10;

void Work::run(uint64_t task) {
  Workspace& work = workspace();
  const uint64_t strip = w.x->strip(), left = task % groups() * width,
                 columns = w.batch - left < width ? w.batch - left : width, inside = left % strip;
  Columns mine = {left, left + columns, 0, 0, nullptr, nullptr, 0};
  if (apart) {
    mine.left = left - inside;
    if (!work.strips.reserve(w.x->laid_out_bytes(inside + columns)))
      return failure.report(failed(Status::no_memory), first);
    w.x->lay_out(mine.left, inside + columns, work.strips.data);
    mine.x = work.strips.data;
  }
  const uint64_t begin = task / groups() * together, end = begin + together < bands ? begin + together : bands;
  for (uint64_t band = begin; band < end; ++band) run_band(band, mine);
  if (streaming) store_fence();
  if (kernels().tiles) kernels().tiles->release();
  work.trim();
}

void Work::run_band(uint64_t band, Columns& mine) {
  uint64_t from = first, to = last, row = 0, rows = w.transposed ? v.grid.cols : v.grid.rows;
  bool begun = first == 0, whole = last == v.grid.segments();
  if (!w.transposed) {
    const uint64_t begin = (first / across + band) * across;
    begun = begin >= first;
    whole = begin + across <= last;
    if (begun) from = begin;
    if (whole) to = begin + across;
    const Place place = v.grid.place(from);
    row = place.row;
    rows = place.rows;
  }
  Workspace& work = workspace();
  const uint32_t strip = w.x->strip();
  const uint64_t item = item_bytes(w.accumulator), left = mine.from, columns = mine.to - left, inside = left % strip,
                 strips = (inside + columns + strip - 1) / strip;
  // Behind the sums there is room for the rest of a strip of which only a part is the task's, and, as rows are found without
  // their positions being looked at again, for whatever position of 16 bits another process may have put there.
  if (!work.sums.reserve((rows * strips + (live ? kPositions : 1)) * strip * item))
    return failure.report(failed(Status::no_memory), from);
  const uint64_t places = w.images.places;
  const int64_t at =
      int64_t(row) * w.at.row + (places ? int64_t(left / places) * w.images.step : int64_t(left) * w.at.column);
  uint8_t* y = static_cast<uint8_t*>(w.y) + at * int64_t{item_bytes(w.result)};
  Strips sums = {w.accumulator, w.result, rows, columns, strip, rows, y, w.at, work.sums.data + inside * item};
  sums.images = w.images;
  sums.place = places ? left % places : 0;
  sums.streaming = streaming;
  if (begun)
    memset(work.sums.data, 0, rows * strips * strip * item);
  else
    kernels().to_strips(sums);
  mine.top = row;
  mine.height = rows;
  mine.sums = work.sums.data;
  Result r;
  uint64_t segment = from;
  Ahead ahead = {v, live, from, to};
  if (live) ahead.fetch();
  for (; segment < to && r.ok(); ++segment) r = multiply_segment(v, w, segment, mine, live, ahead, choice, work);
  if (!r.ok()) return failure.report(r, segment - 1);
  const auto term = [&](const void* of) {
    return of && whole ? static_cast<const uint8_t*>(of) + row * item : nullptr;
  };
  kernels().from_strips(sums, term(w.scale), term(w.bias));
}

// Bytes of weights from which on it pays to look for zeros in x.
constexpr uint64_t kWorthSkipping = 32 << 10;

// Bytes of the weights in segments [first, last).
uint64_t weight_bytes(const View& v, uint64_t first, uint64_t last) {
  uint64_t bytes = 0;
  for (uint32_t s = 0; s < v.streams; ++s)
    for (uint64_t i = first; i < last && !v.stream[s].shared; ++i) bytes += v.stream[s].lengths[i - v.first];
  return bytes;
}

}  // namespace

const ProductKernel* find_product(const char* name) {
  for (uint32_t i = 0; i < kernels().product_count; ++i)
    if (strcmp(kernels().products[i].name, name) == 0) return &kernels().products[i];
  return nullptr;
}

bool can_run(const ProductKernel& row, const Product& w) {
  return row.accumulator == w.accumulator && (row.value == Type::any || row.value == w.value) && row.least <= w.batch &&
         w.batch <= row.most && (!row.finite || w.x->finite) && (!row.here || row.here()) && w.x->holds(row.items);
}

Result multiply(const View& v, const Product& w, uint64_t first, uint64_t last, uint32_t threads) {
  if (first == last || w.batch == 0) return Result();
  const Result shared = open_shared(v, first, last, false);
  if (!shared.ok()) return shared;
  const uint64_t across = v.grid.across(), strip = w.x->strip(),
                 bands = w.transposed ? 1 : (last - 1) / across - first / across + 1,
                 rows = w.transposed ? v.grid.cols : v.grid.segment_rows,
                 room = kBandBytes / (rows * strip * item_bytes(w.accumulator));
  // Where x is zero, W^T x asks for nothing of W's row, and the layouts that find the others without it do not read it.
  const LayoutKernels& layout = kernels().layouts[uint32_t(v.layout)];
  const bool skips = w.transposed && v.checked && layout.row && !layout.columns(v.params) && v.grid.cols <= kPanel &&
                     weight_bytes(v, first, last) >= kWorthSkipping;
  const bool apart = (w.x->window.images || v.grid.segments() <= kFewBands * across) && w.batch > strip;
  const uint64_t fit = apart ? kApartBytes / (strip_rows(w.x->n) * strip * item_bytes(w.accumulator)) : room,
                 strips = fit < room ? fit : room;
  if (threads > 1 && weight_bytes(v, first, last) * (w.batch < 8 ? w.batch : 8) < kWorthTwo) threads = 1;
  const bool streaming = w.batch * (w.transposed ? v.grid.cols : v.grid.rows) * item_bytes(w.result) >= kStreamed &&
                         last == v.grid.segments();
  const uint64_t together = apart && (threads == 1 || w.x->window.images) ? bands : 1;
  Work work = {v,      w,     skips ? w.x->live() : nullptr, Choice(w), first,    last,
               across, bands, strip * (strips ? strips : 1), apart,     together, streaming,
               {}};
  // A task less than there are threads, or one too many, leaves some of them waiting. What a task has is divided: its strips,
  // then its bands, for each of which x is laid out again, then a strip, the parts of which are multiplied more slowly.
  const auto uneven = [&] {
    const uint64_t tasks = work.tasks();
    return threads > 1 && (tasks < threads || (tasks < 4 * threads && tasks % threads));
  };
  while (work.width > strip && uneven()) work.width = (work.width / strip + 1) / 2 * strip;
  while (threads > 1 && work.together > 1 && work.tasks() < 2 * threads) work.together = (work.together + 1) / 2;
  while (work.width > 4 && work.width <= strip && uneven()) work.width /= 2;
  parallel(
      uint32_t(work.tasks()), threads, [](void* at, uint32_t task, uint32_t) { static_cast<Work*>(at)->run(task); },
      &work);
  return work.failure.result;
}

Result multiply_rows(const View& v, const Rows& r, uint32_t threads) {
  const uint64_t n = r.transposed ? v.grid.rows : v.grid.cols, m = r.transposed ? v.grid.cols : v.grid.rows;
  Product w = {};
  w.value = r.value;
  w.accumulator = r.accumulator;
  w.result = r.item;
  w.y = r.y;
  w.at = {1, int64_t(m)};
  w.bias = r.bias;
  w.batch = r.batch;
  w.transposed = r.transposed;
  Buffer wide;
  if (r.bias && r.term != r.accumulator) {
    const uint32_t from = item_bytes(r.term), to = item_bytes(r.accumulator);
    if (!wide.reserve(m * to)) return failed(Status::no_memory);
    for (uint64_t i = 0; i < m; i += kPanel)
      kernels().convert_values(r.term, static_cast<const uint8_t*>(r.bias) + i * from,
                               uint32_t(m - i < kPanel ? m - i : kPanel), r.accumulator, wide.data + i * to, 0);
    w.bias = wide.data;
  }
  w.x = new_operand(r.item, r.accumulator, r.x, {1, int64_t(n)}, n, r.batch);
  if (!w.x) return failed(Status::no_memory);
  const Result result = multiply(v, w, 0, v.grid.segments(), threads);
  free_operand(w.x);
  return result;
}

}  // namespace codec
