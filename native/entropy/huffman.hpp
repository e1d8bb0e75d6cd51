// Canonical Huffman codes as the kernels use them (spec section 6): the code of a stream and the proof that it is one.
#pragma once
#include "split.hpp"

namespace codec {

constexpr uint32_t kLongest = 15;     // bits of the longest code word
constexpr uint32_t kPartHeader = 16;  // bytes before lane 0: the count and the lengths of lanes 0 to 2

// The split and the lengths come from the header; prepare() proves them and adds the rest.
struct HuffmanCode : Split {
  uint32_t longest;  // bits of the longest code word; 0 only for a single symbol
  uint8_t lengths[kSymbols];
  uint16_t codes[kSymbols];  // first bit of the code word in bit 0, as it is written
  // By the next `longest` bits: length | symbol << 8. The length is lowest, where a shift takes it as it is.
  uint16_t table[1 << kLongest];
};

// Proves that the code is complete and fits its items, and only then derives codes and table. bad_table otherwise.
inline Status prepare(HuffmanCode& code) {
  if (prove(code) != Status::ok) return Status::bad_table;
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

  for (uint32_t s = code.symbols; s < kSymbols; ++s) code.lengths[s] = 0;
  uint32_t next[kLongest + 1] = {};
  for (uint32_t length = 2; length <= kLongest; ++length) next[length] = (next[length - 1] + count[length - 1]) << 1;
  code.table[0] = 0;
  for (uint32_t s = 0; s < kSymbols; ++s) {
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
