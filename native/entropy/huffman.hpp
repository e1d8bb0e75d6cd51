// Canonical Huffman codes as the kernels use them (spec section 6): the code of a stream and the proof that it is one.
#pragma once
#include "../contract.hpp"

namespace codec {

constexpr uint32_t kLongest = 15;     // bits of the longest code word
constexpr uint32_t kField = 56;       // raw bits per item: one unaligned 64-bit load, shifted by up to 7, holds them
constexpr uint32_t kPartHeader = 16;  // bytes before lane 0: the count and the lengths of lanes 0 to 2

// width, kind, low, zeros, first, symbols and lengths come from the header; prepare() proves them and adds the rest.
struct HuffmanCode {
  uint32_t width;  // bytes of an item: 1, 2, 4 or 8
  Kind kind;
  uint32_t low;      // raw bits of a key
  uint32_t zeros;    // low bits that are zero in every key, below the raw ones
  uint32_t field;    // raw bits of an item: low, and the sign of a float
  uint64_t first;    // what symbol 0 stands for
  uint32_t symbols;  // 1 to 256
  uint32_t longest;  // bits of the longest code word; 0 only for a single symbol
  uint8_t lengths[256];
  uint16_t codes[256];  // first bit of the code word in bit 0, as it is written
  // By the next `longest` bits: length | symbol << 8. The length is lowest, where a shift takes it as it is.
  uint16_t table[1 << kLongest];
};

// Bits of a key: an item without its sign if it is a float.
inline uint32_t key_bits(uint32_t width, Kind kind) { return 8 * width - (kind == Kind::float_ ? 1 : 0); }

// XOR with this, then AND with `ones(key_bits)`, makes a key of an item.
inline uint64_t key_flip(uint32_t width, Kind kind) {
  return kind == Kind::signed_ ? uint64_t{1} << (8 * width - 1) : 0;
}

inline uint64_t ones(uint32_t bits) { return bits < 64 ? (uint64_t{1} << bits) - 1 : ~uint64_t{0}; }

// Proves that the code is complete and fits its items, and only then derives codes and table. bad_table otherwise.
// Found and expected of the Kraft sum would not help anyone: the header was read and named by then.
inline Status prepare(HuffmanCode& code) {
  const uint32_t width = code.width;
  if (width != 1 && width != 2 && width != 4 && width != 8) return Status::bad_table;
  if (code.kind > Kind::float_ || (code.kind == Kind::float_ && width == 1)) return Status::bad_table;
  const uint32_t bits = key_bits(width, code.kind);
  if (code.low >= bits || code.zeros >= bits - code.low) return Status::bad_table;
  code.field = code.low + (code.kind == Kind::float_ ? 1 : 0);
  if (code.field > kField) return Status::bad_table;
  if (code.symbols < 1 || code.symbols > 256) return Status::bad_table;
  const uint64_t last = ones(bits - code.low - code.zeros);  // the largest number that the modelled bits can hold
  if (code.symbols - 1 > last || code.first > last - (code.symbols - 1)) return Status::bad_table;

  uint32_t count[kLongest + 1] = {};
  uint32_t kraft = 0;  // in units of 2^-15; 256 code words of 1 bit stay below 2^23
  code.longest = 0;
  for (uint32_t s = 0; s < code.symbols; ++s) {
    const uint32_t length = code.lengths[s];
    if (length > kLongest) return Status::bad_table;
    ++count[length];
    if (length != 0) kraft += 1u << (kLongest - length);
    if (length > code.longest) code.longest = length;
  }
  if (code.symbols == 1) {  // one symbol needs no bits, and has exactly one way to say so
    if (code.longest != 0) return Status::bad_table;
  } else if (kraft != 1u << kLongest || code.lengths[0] == 0 || code.lengths[code.symbols - 1] == 0) {
    return Status::bad_table;
  }

  for (uint32_t s = code.symbols; s < 256; ++s) code.lengths[s] = 0;
  uint32_t next[kLongest + 1] = {};
  for (uint32_t length = 2; length <= kLongest; ++length) next[length] = (next[length - 1] + count[length - 1]) << 1;
  code.table[0] = 0;
  for (uint32_t s = 0; s < 256; ++s) {
    const uint32_t length = code.lengths[s];
    uint32_t reversed = 0;
    if (length != 0) {
      const uint32_t word = next[length]++;
      for (uint32_t bit = 0; bit < length; ++bit) reversed |= (word >> bit & 1) << (length - 1 - bit);
      for (uint32_t i = reversed; i < 1u << code.longest; i += 1u << length) {
        code.table[i] = static_cast<uint16_t>(length | s << 8);
      }
    }
    code.codes[s] = static_cast<uint16_t>(reversed);
  }
  return Status::ok;
}

}  // namespace codec
