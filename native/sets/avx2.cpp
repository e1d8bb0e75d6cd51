// The AVX2 set: AVX2 with FMA, BMI, LZCNT, POPCNT, F16C, the crc32 instruction and carry-less multiplication (x86-64-v3
// and PCLMULQDQ). dispatch.cpp tests for each of these.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>

#include "../context/fit.hpp"
#include "../contract.hpp"
#include "../entropy/huffman.hpp"
#include "../entropy/rans.hpp"
#include "../stats/stats.hpp"

#define FN static __attribute__((target("avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c,sse4.2,pclmul")))

namespace codec {
namespace avx2 {

#include "../simd/bits.inc"
#include "../simd/fallback.inc"
#include "../simd/avx2.inc"
#include "../simd/avx2_sums.inc"
#include "../simd/avx2_lanes.inc"
#include "../crc32c/rows.inc"
#include "../crc32c/no_folding.inc"
#include "../crc32c/instructions.inc"
#include "kernels.inc"
#include "../product/mask.inc"
#include "../product/fours.inc"

constexpr ProductKernel kProductRows[] = {
#include "../product/tile_rows.inc"
#include "../product/mask_rows.inc"
#include "../product/fours_rows.inc"
#include "../product/line_rows.inc"
#include "../product/sliced_rows.inc"
#include "../product/block_rows.inc"
};

#include "table.inc"

}  // namespace avx2

extern const Kernels kAvx2;
const Kernels kAvx2 = avx2::kTable;

}  // namespace codec
#endif
