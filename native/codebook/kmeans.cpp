// One-dimensional k-means for codebooks: the best partition of a few thousand weighted buckets by dynamic programming,
// then Lloyd's rounds over all points. Everything reads prefix sums: a round costs k searches, whatever n is.
#include "kmeans.hpp"

#include <cmath>

#include "../workspace.hpp"

namespace codec {
namespace {

struct Sums {
  double w, s, q;  // weight, weighted sum, weighted sum of squares of the points before one
};

// Squared error of the points [a, b) around their mean.
double error_of(const Sums* sums, uint64_t a, uint64_t b) {
  double w = sums[b].w - sums[a].w, s = sums[b].s - sums[a].s;
  double e = sums[b].q - sums[a].q - (w > 0 ? s * s / w : 0);
  return e > 0 ? e : 0;
}

uint64_t first_above(const double* x, uint64_t from, uint64_t to, double value) {
  while (from < to) {
    uint64_t middle = from + (to - from) / 2;
    if (x[middle] <= value)
      from = middle + 1;
    else
      to = middle;
  }
  return from;
}

struct Layer {
  const Sums* sums;      // of the points
  const uint64_t* edge;  // bucket b is the points [edge[b], edge[b + 1])
  const double* before;  // least error of the first b buckets in one cluster less
  double* now;
  uint16_t* choice;  // where the last cluster begins
};

// Buckets [lo, hi] as ends of the last cluster, which begins in [from, to]: the best beginning never falls as the end rises.
void solve(const Layer& l, uint32_t lo, uint32_t hi, uint32_t from, uint32_t to) {
  while (lo <= hi) {
    uint32_t middle = lo + (hi - lo) / 2, best = from;
    double least = INFINITY;
    for (uint32_t at = from; at <= to && at < middle; ++at) {
      double e = l.before[at] + error_of(l.sums, l.edge[at], l.edge[middle]);
      if (e < least) {
        least = e;
        best = at;
      }
    }
    l.now[middle] = least;
    l.choice[middle] = uint16_t(best);
    if (middle > lo) solve(l, lo, middle - 1, from, best);
    lo = middle + 1;
    from = best;
  }
}

// The cube root of the density between two points, times their distance.
double spread(const double* x, const Sums* sums, uint64_t a, uint64_t b) {
  const double gap = x[b] - x[a];
  return std::cbrt((sums[b].w - sums[a].w) * gap * gap);
}

// Cuts at equal shares of the weight, and at equal shares of the integral of the cube root of its density: that is how the
// centers of many clusters spread where the weight is smooth, and an outlier's share is large by the gap before it.
uint32_t cut(const double* x, const Sums* sums, uint64_t n, uint32_t parts, uint64_t* edge) {
  const uint64_t stride = n / 65536 + 1;
  double all = 0;
  for (uint64_t i = stride; i < n; i += stride) all += spread(x, sums, i - stride, i);
  uint32_t count = 0;
  uint64_t at = 0;
  double share = 0, now = 0;
  edge[count++] = 0;
  for (uint64_t i = 0, next_weight = 1, next_spread = 1; i < n; i += stride) {
    if (i) now += spread(x, sums, i - stride, i);
    share = sums[i].w / sums[n].w;
    bool here = false;
    for (; next_weight < parts && share * parts >= double(next_weight); ++next_weight) here = true;
    for (; next_spread < parts && now * parts >= all * double(next_spread); ++next_spread) here = true;
    uint64_t next = i;
    while (here && next && next < n && x[next] == x[next - 1]) ++next;  // equal points stay together
    if (here && next > at && next < n) edge[count++] = at = next;
  }
  edge[count] = n;
  return count;
}

}  // namespace

Status kmeans(const double* x, const double* weight, uint64_t n, uint32_t k, bool start, uint32_t rounds,
              double* centers) {
  if (n == 0 || k == 0) return Status::ok;
  Buffer room, table;
  if (!room.reserve((n + 1) * sizeof(Sums))) return Status::no_memory;
  Sums* sums = reinterpret_cast<Sums*>(room.data);
  sums[0] = {0, 0, 0};
  for (uint64_t i = 0; i < n; ++i) {
    double w = weight ? weight[i] : 1, s = w * x[i];
    sums[i + 1] = {sums[i].w + w, sums[i].s + s, sums[i].q + s * x[i]};
  }
  if (!start) {
    uint32_t parts = 16 * k < 256 ? 256 : 16 * k > 2048 ? 2048 : 16 * k;
    const uint64_t most = 2 * uint64_t(parts) + 4;
    if (!table.reserve(most * (8 + 16 + 2 * uint64_t(k)))) return Status::no_memory;
    uint64_t* edge = reinterpret_cast<uint64_t*>(table.data);
    double* error[2] = {reinterpret_cast<double*>(edge + most), reinterpret_cast<double*>(edge + 2 * most)};
    uint16_t* choice = reinterpret_cast<uint16_t*>(edge + 3 * most);
    uint32_t buckets = cut(x, sums, n, parts, edge);
    uint32_t used = k < buckets ? k : buckets;
    for (uint32_t b = 0; b <= buckets; ++b) {
      error[0][b] = error_of(sums, 0, edge[b]);
      choice[b] = 0;
    }
    for (uint32_t c = 1; c < used; ++c) {
      Layer l = {sums, edge, error[(c - 1) % 2], error[c % 2], choice + c * most};
      for (uint32_t b = 0; b <= c; ++b) l.now[b] = 0, l.choice[b] = uint16_t(b ? b - 1 : 0);
      if (c < buckets) solve(l, c + 1, buckets, c, buckets - 1);
    }
    uint32_t end = buckets;
    for (uint32_t c = used; c-- > 0;) {
      uint32_t begin = c ? choice[c * most + end] : 0;
      const Sums &a = sums[edge[begin]], &b = sums[edge[end]];
      centers[c] = b.w > a.w ? (b.s - a.s) / (b.w - a.w) : x[edge[begin]];
      end = begin;
    }
    for (uint32_t c = used; c < k; ++c) centers[c] = centers[used - 1];
  }
  for (uint32_t round = 0; round < rounds; ++round) {
    bool moved = false;
    uint64_t begin = 0;
    for (uint32_t c = 0; c < k; ++c) {
      uint64_t end = c + 1 < k ? first_above(x, begin, n, centers[c] / 2 + centers[c + 1] / 2) : n;
      double w = sums[end].w - sums[begin].w;
      if (w > 0) {
        double mean = (sums[end].s - sums[begin].s) / w;
        // A mean never passes its cluster's bounds, whatever rounding says.
        mean = mean < x[begin] ? x[begin] : mean > x[end - 1] ? x[end - 1] : mean;
        moved |= std::fabs(mean - centers[c]) > 1e-12 * (1 + std::fabs(mean));
        centers[c] = mean;
      }
      begin = end;
    }
    if (!moved) break;
  }
  return Status::ok;
}

}  // namespace codec
