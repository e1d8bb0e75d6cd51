// The scalar set: portable C++, what every kernel means, and what runs where nothing wider does.
#include <cstring>

#include "engine.hpp"

#define CODEC_SET_NAME "scalar"
#define CODEC_AVX2 0
#define CODEC_AVX512 0
#define FN static

namespace codec {
namespace scalar {
#include "families.inc"
}  // namespace scalar

extern const Kernels kScalar;
const Kernels kScalar = scalar::kTable;

}  // namespace codec
