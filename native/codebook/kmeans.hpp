// One-dimensional k-means, for codebooks.
#pragma once
#include "../contract.hpp"

namespace codec {

// x: n sorted points; weight: theirs, or null for 1 each. centers: k, ascending; with `start` they are where Lloyd's
// rounds begin, else the rounds begin at the best partition of buckets. At most `rounds` of them.
Status kmeans(const double* x, const double* weight, uint64_t n, uint32_t k, bool start, uint32_t rounds,
              double* centers);

}  // namespace codec
