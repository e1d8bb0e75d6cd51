// One segment being written.
#pragma once
#include "../encode.hpp"
#include "../workspace.hpp"

namespace codec {

// Puts a segment's streams, written in `layout`, into streams->part.
Status write_segment(Layout layout, const Params&, Flat, Streams*, uint64_t segment, Workspace&);

// Dense elements of a segment, `keep` as in encode(), to flat mask form; adds the dropped -0.0 to *dropped.
Status flatten_segment(const Matrix&, uint64_t segment, const uint8_t* dense, const uint8_t* keep, Workspace&, Flat&,
                       uint64_t* dropped);

}  // namespace codec
