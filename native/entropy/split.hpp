// How items are cut into symbols and raw bits (spec sections 6.2 and 6.3), whatever codes the symbols.
#pragma once
#include "../contract.hpp"

namespace codec {

constexpr uint32_t kSymbols = 256;  // of a code at most
constexpr uint32_t kField = 56;     // raw bits per item: one unaligned 64-bit load, shifted by up to 7, holds them

// width, kind, low, zeros, first and symbols come from the header; prove() adds `field`.
struct Split {
  uint32_t width;  // bytes of an item: 1, 2, 4 or 8
  Kind kind;
  uint32_t low;      // raw bits of a key
  uint32_t zeros;    // low bits that are zero in every key, below the raw ones
  uint32_t field;    // raw bits of an item: low, and the sign of a float
  uint64_t first;    // what symbol 0 stands for
  uint32_t symbols;  // 1 to kSymbols
};

// Bits of a key: an item without its sign if it is a float.
inline uint32_t key_bits(uint32_t width, Kind kind) { return 8 * width - (kind == Kind::float_ ? 1 : 0); }

// XOR with this, then AND with `ones(key_bits)`, makes a key of an item.
inline uint64_t key_flip(uint32_t width, Kind kind) {
  return kind == Kind::signed_ ? uint64_t{1} << (8 * width - 1) : 0;
}

inline uint64_t ones(uint32_t bits) { return bits < 64 ? (uint64_t{1} << bits) - 1 : ~uint64_t{0}; }

// Proves that the split fits its items; bad_table otherwise. Found and expected would not help anyone: the header was
// read and named by then.
inline Status prove(Split& split) {
  const uint32_t width = split.width;
  if (width != 1 && width != 2 && width != 4 && width != 8) return Status::bad_table;
  if (split.kind > Kind::float_ || (split.kind == Kind::float_ && width == 1)) return Status::bad_table;
  const uint32_t bits = key_bits(width, split.kind);
  if (split.low >= bits || split.zeros >= bits - split.low) return Status::bad_table;
  split.field = split.low + (split.kind == Kind::float_ ? 1 : 0);
  if (split.field > kField) return Status::bad_table;
  if (split.symbols < 1 || split.symbols > kSymbols) return Status::bad_table;
  const uint64_t last = ones(bits - split.low - split.zeros);  // the largest number that the modelled bits can hold
  if (split.symbols - 1 > last || split.first > last - (split.symbols - 1)) return Status::bad_table;
  return Status::ok;
}

}  // namespace codec
