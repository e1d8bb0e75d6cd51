// Filters over images: a task for each of them.
#include <cstring>

#include "../pool.hpp"
#include "../product.hpp"

namespace codec {

namespace {

// Short lines are worked out several at a time, with the places between them that are none of the output: vectors are
// full then. So many places at a time, for lines up to so many.
constexpr uint64_t kPlaces = 4096, kShort = 64;

// One filter over one image.
void filter_image(const Filters& f, uint64_t image, uint64_t filter, uint8_t* out) {
  const uint64_t item = item_bytes(f.type), first = f.starts[filter], taps = f.starts[filter + 1] - first;
  const uint8_t *pixels = f.pixels + image * f.image * item, *weights = f.weights + first * item,
                *bias = f.bias ? f.bias + filter * item : nullptr;
  const bool together = f.step == 1 && f.width < kShort && f.line >= f.width && f.line < 2 * f.width;
  const uint64_t step = together ? kPlaces / f.line : 1;
  alignas(64) uint8_t places[kPlaces * sizeof(double)];
  for (uint64_t line = 0; line < f.height; line += step) {
    const uint64_t lines = f.height - line < step ? f.height - line : step, n = (lines - 1) * f.line + f.width;
    uint8_t* to = out + line * f.width * item;
    kernels().filter_line(f.type, pixels + line * f.line * item, int64_t(f.step), f.offsets + first, weights, taps,
                          bias, n, lines > 1 ? places : to);
    for (uint64_t i = 0; lines > 1 && i < lines; ++i)
      memcpy(to + i * f.width * item, places + i * f.line * item, f.width * item);
  }
}

}  // namespace

void filter(const Filters& f, uint32_t threads) {
  const uint64_t tasks = f.images * f.filters;
  struct Context {
    const Filters& f;
    uint64_t tasks, runs;
  } context{f, tasks, tasks < 1024 ? tasks : 1024};
  if (!tasks) return;
  parallel(
      uint32_t(context.runs), threads,
      [](void* at, uint32_t run, uint32_t) {
        const Context& c = *static_cast<const Context*>(at);
        const Filters& f = c.f;
        const uint64_t bytes = f.height * f.width * item_bytes(f.type);
        for (uint64_t task = c.tasks * run / c.runs; task < c.tasks * (uint64_t{run} + 1) / c.runs; ++task)
          filter_image(c.f, task / f.filters, task % f.filters, f.out + task * bytes);
      },
      &context);
}

}  // namespace codec
