// The AVX-512 set: what Ice Lake and Zen 4 have beyond AVX2. dispatch.cpp tests for each of these. And the AMX set: the same,
// with products by the tiles that Sapphire Rapids has beyond it.
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
#include "../product/tiles.hpp"
#include "../stats/stats.hpp"

#define FN                                                                                                      \
  static __attribute__((                                                                                        \
      target("avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c,sse4.2,pclmul,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi," \
             "avx512vbmi2,avx512vpopcntdq,vpclmulqdq")))
#define FN_PAIRS                                                                                                \
  static __attribute__((                                                                                        \
      target("avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c,sse4.2,pclmul,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi," \
             "avx512vbmi2,avx512vpopcntdq,vpclmulqdq,avx512bf16")))

namespace codec {
namespace avx512 {

#include "../simd/bits.inc"
#include "../simd/fallback.inc"
#include "../simd/avx512.inc"
#include "../simd/avx512_sums.inc"
#include "../simd/avx512_lanes.inc"
#include "../simd/avx512_tables.inc"
#include "../crc32c/rows.inc"
#include "../crc32c/folding.inc"
#include "../crc32c/instructions.inc"
#include "kernels.inc"
#include "../product/mask.inc"
#include "../product/fours.inc"
#include "../product/mask_few.inc"
#include "../product/mask_look_up.inc"
#include "../product/mask_codes.inc"
#include "../product/sliced_planes.inc"
#include "../product/pairs.inc"
#include "../product/mask_words.inc"

constexpr ProductKernel kProductRows[] = {
#include "../product/pair_rows.inc"
#include "../product/few_rows.inc"
#include "../product/plane_rows.inc"
#include "../product/look_up_rows.inc"
#include "../product/tile_rows.inc"
#include "../product/mask_rows.inc"
#include "../product/fours_rows.inc"
#include "../product/line_rows.inc"
#include "../product/sliced_rows.inc"
#include "../product/block_rows.inc"
};

#include "table.inc"

#include "../simd/amx.inc"
#include "tiles.inc"

}  // namespace avx512

extern const Kernels kAvx512;
const Kernels kAvx512 = avx512::kTable;
extern const Kernels kAmx;
const Kernels kAmx = avx512::with_tiles(avx512::kTable, "amx");

}  // namespace codec
#endif
