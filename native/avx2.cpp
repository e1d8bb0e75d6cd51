// The AVX2 set: AVX2 with FMA, BMI, F16C, the crc32 instruction and carry-less multiplication (x86-64-v3 and PCLMULQDQ).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "engine.hpp"

#define CODEC_SET_NAME "avx2"
#define CODEC_AVX2 1
#define CODEC_AVX512 0
#define FN static __attribute__((target("avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c,sse4.2,pclmul")))

namespace codec {
namespace avx2 {
#include "families.inc"
}  // namespace avx2

extern const Kernels kAvx2;
const Kernels kAvx2 = avx2::kTable;

}  // namespace codec
#endif
