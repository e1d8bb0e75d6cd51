// Statistics: what the sizes of layouts depend on, counted on demand. Each statistic has a file here and a row in
// statistics.inc; count.cpp walks over the segments and hands each of them to every statistic that was asked for.
#pragma once
#include "../contract.hpp"
#include "../grid.hpp"

namespace codec {

// The u64 words of a statistic. Every segment adds to its `sums`: threads count into sums of their own, which are then
// merged. The `places` stand behind them, and each word there belongs to one segment, or to columns that one thread has
// to itself. Both start at 0.
struct StatsWords {
  uint64_t sums, places;
  uint64_t room;  // bytes that count() works in; 0 at first, and left to the same statistic from segment to segment
};
constexpr StatsWords kNoStats = {~uint64_t{0}, 0, 0};  // arguments that the statistic cannot have

// One segment to be counted.
struct StatsSegment {
  const Flat& flat;
  const Grid& grid;
  uint64_t number, row, col;  // in the grid, and of the segment's first element in the matrix
  // The mask row by row, `step` words each; bits past the end of a row are 0. Null where no statistic wants it.
  const uint64_t* lines;
  uint64_t step;
};

struct Statistic {
  const char* name;
  bool lines;  // whether count() reads StatsSegment::lines
  StatsWords (*words)(uint64_t a, uint64_t b, const Grid&);
  void (*merge)(uint64_t* to, const uint64_t* from, uint64_t sums);
  void (*count)(const StatsSegment&, uint64_t a, uint64_t b, uint64_t* sums, uint64_t* places, uint8_t* room);
};

// What a caller asks for: a statistic by its number, its two arguments, and where its words go.
struct StatsRequest {
  uint32_t statistic;
  uint64_t a, b;
  uint64_t* out;
};

}  // namespace codec
