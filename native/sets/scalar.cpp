// The scalar set: portable C++, what every kernel means, and what runs where nothing wider does. And the same with products
// by a model of AMX's tiles, which tests take in their place.
#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>

#include "../context/fit.hpp"
#include "../contract.hpp"
#include "../entropy/huffman.hpp"
#include "../entropy/rans.hpp"
#include "../product/tiles.hpp"
#include "../stats/stats.hpp"

#define FN static

namespace codec {
namespace scalar {

#include "../simd/bits.inc"
#include "../simd/fallback.inc"
#include "../simd/scalar.inc"
#include "../simd/scalar_lanes.inc"
#include "../crc32c/rows.inc"
#include "../crc32c/table.inc"
#include "kernels.inc"
#include "../product/mask_plain.inc"
#include "../product/fours_plain.inc"

constexpr ProductKernel kProductRows[] = {
#include "../product/mask_rows.inc"
#include "../product/fours_rows.inc"
#include "../product/line_rows.inc"
#include "../product/sliced_rows.inc"
#include "../product/block_rows.inc"
};

#include "table.inc"

#include "../simd/amx_model.inc"
#include "tiles.inc"

}  // namespace scalar

extern const Kernels kScalar;
const Kernels kScalar = scalar::kTable;
extern const Kernels kAmxModel;
const Kernels kAmxModel = scalar::with_tiles(scalar::kTable, "amx-model");

}  // namespace codec
