// What the bits of items say, in any type of products: which are zeros, which are infinities or NaNs.
#pragma once
#include <cstring>

#include "../contract.hpp"

namespace codec {

// The bits of an item that tell whether it compares equal to zero.
constexpr uint64_t magnitude_of(Type type) {
  const bool has_sign = type <= Type::e5m2;  // floats; of integers, any bit makes a value that is not zero
  return ~uint64_t{0} >> (64 - 8 * item_bytes(type) + (has_sign ? 1 : 0));
}

// The bits that are all set in an infinity or a NaN, and in nothing else; 0: the type has neither.
constexpr uint64_t infinity_of(Type type) {
  return type == Type::f64    ? 0x7FF0000000000000
         : type == Type::f32  ? 0x7F800000
         : type == Type::f16  ? 0x7C00
         : type == Type::bf16 ? 0x7F80
         : type == Type::e4m3 ? 0x7F
         : type == Type::e5m2 ? 0x7C
                              : 0;
}

// Whether one of n items, `step` bytes apart, is an infinity or a NaN. Items side by side are looked at several at a time: the
// bits of `infinity` are those below the sign, and to add the lowest of them carries into it where all are set.
template <bool side_by_side, class Bits>
bool any_infinite(const uint8_t* items, int64_t step, uint64_t n, Bits infinity) {
  const Bits lowest = infinity & Bits(~infinity + 1);
  Bits found = 0;
  for (uint64_t i = 0; i < n; ++i, items += side_by_side ? int64_t(sizeof(Bits)) : step) {
    Bits bits;
    memcpy(&bits, items, sizeof(Bits));
    found |= Bits((bits & infinity) + lowest);
  }
  return found >> (8 * sizeof(Bits) - 1);
}

template <bool side_by_side>
bool all_finite(Type type, const uint8_t* items, int64_t step, uint64_t n) {
  const uint64_t infinity = infinity_of(type);
  if (!infinity) return true;
  switch (item_bytes(type)) {
    case 1:
      return !any_infinite<side_by_side>(items, step, n, uint8_t(infinity));
    case 2:
      return !any_infinite<side_by_side>(items, step, n, uint16_t(infinity));
    case 4:
      return !any_infinite<side_by_side>(items, step, n, uint32_t(infinity));
    default:
      return !any_infinite<side_by_side>(items, step, n, infinity);
  }
}

}  // namespace codec
