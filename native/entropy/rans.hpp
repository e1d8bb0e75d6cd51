// Interleaved rANS with one table of counts for a stream (spec section 6.6): the table and the proof that it is one.
// States and words are those of layout context (context/model.hpp).
#pragma once
#include "../context/model.hpp"
#include "split.hpp"

namespace codec {

constexpr uint32_t kScale = 12;      // a table's counts have the sum 2^kScale
constexpr uint32_t kMostShared = 4;  // log2 of the most lanes, which share their words: one bank of layout context

// The split, the lanes and the counts come from the header; prepare() proves them and adds the rest.
struct RansCode : Split {
  uint32_t lanes;  // log2
  uint16_t counts[kSymbols];
  uint32_t shares[kSymbols];     // by symbol: count << 16 | start
  uint32_t items[1u << kScale];  // by the low bits of a state, as fill_table() makes them
};

// Proves that the table is complete and fits its items, and only then derives what coding looks up. bad_table otherwise.
inline Status prepare(RansCode& code) {
  if (prove(code) != Status::ok || code.lanes > kMostShared) return Status::bad_table;
  static_assert(1u << kMostShared == kBankLanes, "one bank of layout context");
  uint32_t sum = 0;  // of up to 256 counts of 16 bits
  for (uint32_t s = 0; s < code.symbols; ++s) sum += code.counts[s];
  if (sum != 1u << kScale || !code.counts[0] || !code.counts[code.symbols - 1]) return Status::bad_table;
  for (uint32_t s = code.symbols; s < kSymbols; ++s) code.counts[s] = 0;
  // A symbol that does not occur gets a share too: an item that has it (a caller's mistake) is divided by its count.
  for (uint32_t s = 0, start = 0; s < kSymbols; start += code.counts[s++])
    code.shares[s] = uint32_t(code.counts[s] ? code.counts[s] : 1) << 16 | start;
  fill_table(code.counts, code.symbols, code.items);
  return Status::ok;
}

}  // namespace codec
