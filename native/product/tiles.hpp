// What products by bf16 numbers and by tiles of them lean on: which numbers they take, and the shapes of tile registers.
#pragma once
#include "../contract.hpp"

namespace codec {

// Exponents of the numbers that products by bf16 numbers take, but for zeros: of x, and of weights where their products are
// added up by tiles. Then no product of a weight and an item is below 2^-100: instructions that take what is below 2^-126
// for zero lose less than 2^-22 of it, in all steps together; and no sum overflows.
constexpr int32_t kLeastX = -64, kMostX = 64, kLeastWeight = -36, kMostWeight = 36;
// The bits of 2^exponent, without the sign, one place to the left: as an f32 or a bf16 number.
template <class Bits>
constexpr Bits twice_bits(int32_t exponent) {
  return Bits(Bits(127 + exponent) << (8 * sizeof(Bits) - 8));
}

// Tile registers: how many there are, their rows and the bytes of a row at most; and their shapes, as the instruction wants
// them.
constexpr uint32_t kTiles = 8, kTileHeight = 16, kTileWidth = 64, kTileShapes = 16;
struct alignas(64) TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[kTileShapes] = {};  // of a row
  uint8_t rows[kTileShapes] = {};
};

}  // namespace codec
