// Counting statistics in one pass over the segments of a matrix, wherever these come from.
#pragma once
#include "../encode.hpp"
#include "../workspace.hpp"
#include "stats.hpp"

namespace codec {

// A statistic by its name; and the words that it takes: false for arguments, or a grid, that it cannot have.
bool find_statistic(const char* name, uint32_t* number);
bool statistic_words(const Grid&, uint32_t number, uint64_t a, uint64_t b, uint64_t* total);

// Adds segments [first, last) to the requests' words, which are statistic_words each and 0 at first. From dense elements
// (as in encode) also to *dropped the elements equal to -0.0 that do not count as stored.
Result count(const View&, const Grid&, uint64_t first, uint64_t last, const StatsRequest*, uint32_t n,
             uint32_t threads);
Result count(const Matrix&, uint64_t first, uint64_t last, const StatsRequest*, uint32_t n, const uint8_t* dense,
             const uint8_t* keep, uint32_t threads, uint64_t* dropped);

// Both of them: `flatten` brings a segment into flat mask form in the workspace, and adds what it dropped to *dropped.
using Flatten = Result (*)(void* context, uint64_t segment, Workspace&, Flat&, uint64_t* dropped);
Result count_segments(const Grid&, uint64_t first, uint64_t last, const StatsRequest*, uint32_t n, uint32_t threads,
                      Flatten, void* context, uint64_t* dropped);

}  // namespace codec
