// What choosing a model and coding by it share.
#pragma once
#include <type_traits>

#include "model.hpp"

namespace codec {

// Counts of 2^scale for symbols that occur so often.
void normalise(const uint32_t* times, uint32_t symbols, uint32_t scale, uint16_t* counts);

// Of n elements of each row of a panel from a column on: 0 where they are known to be dead, else all bits set. Rows are
// asked for one after the other: what the one before had and this one has too stays.
class LiveLines {
 public:
  LiveLines(const ContextModel& m, uint32_t col, uint32_t n, uint8_t* line) : m(m), col(col), n(n), line(line) {}
  // Those of a row; null where none is dead.
  const uint8_t* of(uint32_t row);

 private:
  // Whether a mask has one block for the whole line.
  bool one_block(const Coarse& coarse) const { return col / coarse.cols == (col + n - 1) / coarse.cols; }
  void mark(const Coarse&, uint32_t row);  // dead blocks of a mask

  const ContextModel& m;
  uint32_t col, n;
  uint8_t* line;
  bool begun = false;
};

// Classes plus 1 of n elements of a row from a column on, or 0 for dead ones.
void class_line(const ContextModel&, uint32_t row, uint32_t col, uint32_t n, const uint8_t* live, uint8_t* line);

}  // namespace codec
