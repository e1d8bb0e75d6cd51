// Filters that see few channels: they are moved over the images themselves. A task is one of them over one image.
#include "../pool.hpp"
#include "../product.hpp"
#include "../workspace.hpp"

namespace codec {

namespace {

struct Work {
  const Filters& f;
  const int64_t* offsets;
  uint64_t tasks, runs;
  int failed;

  void run(uint64_t first, uint64_t end);
};

// Tasks that follow each other often see the same channels, which are put between zeros once for all of them.
void Work::run(uint64_t first, uint64_t end) {
  const uint64_t item = item_bytes(f.item), width = item_bytes(f.type), plane = f.lines * f.line * width,
                 size = f.window.output[0] * f.window.output[1] * item, each = f.filters / f.groups,
                 channels = f.window.channels / f.groups;
  Buffer& padded = workspace().strips;
  if (!padded.reserve(channels * plane + kSlack)) return __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  uint8_t* const planes = padded.data;
  memset(planes, 0, channels * plane + kSlack);
  const Kernels& k = kernels();
  uint64_t image = first / f.filters, filter = first % f.filters, group = filter / each;
  bool there = false;
  for (uint64_t task = first; task < end; ++task) {
    for (uint64_t c = 0; !there && c < channels; ++c) {
      const int64_t from = int64_t(image) * f.window.image + int64_t(group * channels + c) * f.window.channel;
      k.put_inside(f.type, f.item, static_cast<const uint8_t*>(f.pixels) + from * int64_t(item), f.window, f.line,
                   planes + c * plane);
    }
    const uint64_t start = f.starts[filter];
    const Taps taps = {f.columns + start, offsets, f.weights + start * width, f.starts[filter + 1] - start,
                       f.bias ? f.bias + filter * width : nullptr};
    k.filter(f.type, f.item, planes, f.window, channels, f.lines, f.line, taps, f.out + task * size);
    there = ++filter < (group + 1) * each;
    if (there || ++group < f.groups) continue;
    filter = group = 0;
    ++image;
  }
  workspace().trim();
}

}  // namespace

bool filter(const Filters& f, uint32_t threads) {
  const uint64_t tasks = f.window.images * f.filters;
  if (!tasks) return true;
  const Window& w = f.window;
  Buffer offsets;
  if (!offsets.reserve(w.rows() / f.groups * sizeof(int64_t))) return false;
  int64_t* to = reinterpret_cast<int64_t*>(offsets.data);
  for (uint64_t c = 0; c < w.channels / f.groups; ++c)
    for (uint64_t i = 0; i < w.kernel[0]; ++i)
      for (uint64_t j = 0; j < w.kernel[1]; ++j)
        *to++ = int64_t((c * f.lines + i * w.dilation[0]) * f.line + j * w.dilation[1]);
  // Each run clears its memory once; a few for each thread keep them all busy to the end.
  const uint64_t runs = threads > 1 ? uint64_t{threads} * 8 : 1;
  Work work = {f, reinterpret_cast<int64_t*>(offsets.data), tasks, tasks < runs ? tasks : runs, 0};
  parallel(
      uint32_t(work.runs), threads,
      [](void* at, uint32_t run, uint32_t) {
        Work& all = *static_cast<Work*>(at);
        all.run(all.tasks * run / all.runs, all.tasks * (uint64_t{run} + 1) / all.runs);
      },
      &work);
  return !work.failed;
}

}  // namespace codec
