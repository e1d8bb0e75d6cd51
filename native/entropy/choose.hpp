// The choice of a code from a histogram of keys (spec section 6): a split, and a Huffman code or a table of counts for
// its symbols. What these mean stands in split.hpp, huffman.hpp and rans.hpp.
#pragma once
#include "huffman.hpp"
#include "rans.hpp"

namespace codec {

// More than any number of items, products with the bits of an item included.
using Wide = unsigned __int128;

// Counts of keys: counts[i] keys have (key >> shift) - first == i. or_of_keys is that of all keys; it is not used where
// shift is 0, because the counts show all bits then.
struct KeyCounts {
  const uint64_t* counts;
  uint64_t size;
  uint32_t shift;
  uint64_t first, or_of_keys;
};

struct ChosenSplit {
  uint32_t low, zeros, symbols;
  uint64_t first;
  uint64_t bits_high, bits_low;  // that the items counted take, symbols and raw fields: high * 2^64 + low
};

struct ChosenCode : ChosenSplit {
  uint8_t lengths[kSymbols];
};

struct ChosenCounts : ChosenSplit {
  uint16_t counts[kSymbols];
};

constexpr uint64_t kMostKeys = ~uint64_t{0} >> 1;  // that counts may add up to

// Lengths of the code words of at most max_length (1 to kLongest) bits that code `counts` in the fewest bits. A symbol
// with count 0 gets length 0, as does a symbol that is alone. False where the counts add up to more than kMostKeys, or
// where there are more symbols than code words.
bool code_lengths(const uint64_t* counts, uint32_t symbols, uint32_t max_length, uint8_t* lengths);

// The split and the code that take the fewest bits for the keys counted and the header's table. `bits`: of a key, where
// items have fewer than their width says; 0: all. False where the counts cannot be those of such keys.
bool choose_code(const KeyCounts&, uint32_t width, Kind, uint32_t max_length, uint32_t bits, ChosenCode&);
bool choose_counts(const KeyCounts&, uint32_t width, Kind, uint32_t bits, ChosenCounts&);

}  // namespace codec
