// The AVX-512 set: what Ice Lake and Zen 4 have beyond AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "engine.hpp"

#define CODEC_SET_NAME "avx512"
#define CODEC_AVX2 1
#define CODEC_AVX512 1
#define FN                                                                                                      \
  static __attribute__((                                                                                        \
      target("avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c,sse4.2,pclmul,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi," \
             "avx512vbmi2,avx512vpopcntdq,vpclmulqdq")))

namespace codec {
namespace avx512 {
#include "families.inc"
}  // namespace avx512

extern const Kernels kAvx512;
const Kernels kAvx512 = avx512::kTable;

}  // namespace codec
#endif
