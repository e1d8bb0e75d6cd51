// One segment being written.
#pragma once
#include "../encode.hpp"
#include "../workspace.hpp"

namespace codec {

// Puts a segment's streams, written in `layout`, into streams->part.
Status write_segment(Layout layout, const Params&, Flat, Streams*, uint64_t segment, Workspace&);

// A segment's elements to flat mask form; adds the dropped -0.0 to *dropped. `dense` and `keep` are as in encode(), without
// the `before` elements that come first in the matrix.
Status flatten_segment(const Matrix&, uint64_t segment, uint64_t before, const uint8_t* dense, const uint8_t* keep,
                       Workspace&, Flat&, uint64_t* dropped);

}  // namespace codec
