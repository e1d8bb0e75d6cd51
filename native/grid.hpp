// A matrix cut into segments. Numbers of elements are indices in row-major order.
#pragma once
#include <cstdint>

namespace codec {

// Where a segment lies in the matrix.
struct Place {
  uint64_t row, col;
  uint32_t rows, cols;

  uint64_t size() const { return uint64_t{rows} * cols; }
};

// Segments are contiguous in row-major order: whole rows, or pieces of one row.
struct Grid {
  uint64_t rows, cols;
  uint32_t segment_rows, segment_cols;

  bool empty() const { return rows == 0 || cols == 0; }
  // Whether the functions below have answers: callers prove it before they use a grid that they were given.
  bool valid() const {
    if (empty()) return true;
    if (segment_rows == 0 || segment_cols == 0 || rows > (uint64_t{1} << 63) / cols) return false;
    return segment_cols < cols ? segment_rows == 1 : segment_rows <= ~uint32_t{0} / segment_cols;
  }
  // Segments side by side: more than one only where they are pieces of a row.
  uint64_t across() const { return empty() ? 0 : (cols - 1) / segment_cols + 1; }
  uint64_t segments() const { return empty() ? 0 : ((rows - 1) / segment_rows + 1) * across(); }

  Place place(uint64_t segment) const {
    const uint64_t beside = across();
    const uint64_t row = segment / beside * segment_rows, col = segment % beside * segment_cols;
    const uint64_t height = rows - row < segment_rows ? rows - row : segment_rows;
    const uint64_t width = cols - col < segment_cols ? cols - col : segment_cols;
    return {row, col, uint32_t(height), uint32_t(width)};
  }
  // The segment that holds an element.
  uint64_t segment_at(uint64_t element) const {
    return element / cols / segment_rows * across() + element % cols / segment_cols;
  }
  // The first element of a segment; the matrix's size for the segment after the last.
  uint64_t element_at(uint64_t segment) const {
    if (segment >= segments()) return rows * cols;
    const Place p = place(segment);
    return p.row * cols + p.col;
  }
};

}  // namespace codec
