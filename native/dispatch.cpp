// Which instruction set runs: chosen once, by name or as the first in kSets that this CPU has.
#include <atomic>
#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "contract.hpp"

namespace codec {

extern const Kernels kScalar;
extern const Kernels kAmxModel;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kAmx;
#endif

namespace {

#if defined(__x86_64__)
// What clang 14 cannot ask for by name.
bool has_lzcnt_and_f16c() {
  unsigned a, b, basic, extended, d;
  if (!__get_cpuid(1, &a, &b, &basic, &d) || !__get_cpuid(0x80000001, &a, &b, &extended, &d)) return false;
  return (basic & bit_F16C) && (extended & bit_LZCNT);
}
// Every feature that avx2.cpp and avx512.cpp are compiled for.
bool has_avx2() {
  return has_lzcnt_and_f16c() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
         __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("vpclmulqdq");
}

// Asks the system for room for the tiles, without which their first use ends the process: once, for all of its threads and
// for what it forks. Where it refuses, as one that does not know of tiles does, this CPU has none.
bool ask_for_tiles() {
#if defined(__linux__)
  constexpr unsigned kNeeded = 1u << 22 | 1u << 24 | 1u << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
  constexpr int kRequest = 0x1023, kTileData = 18;              // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kNeeded) == kNeeded &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}
bool has_amx() {
  static const bool found = has_avx512() && ask_for_tiles();
  return found;
}
#endif
bool always() { return true; }

struct Set {
  const char* name;
  const Kernels* kernels;  // null: not built for this architecture
  bool (*runs_here)();
};

// Best first. Behind the set that runs everywhere stands what is never chosen but by its name.
const Set kSets[] = {
#if defined(__x86_64__)
    {"amx", &kAmx, has_amx},      {"avx512", &kAvx512, has_avx512},  {"avx2", &kAvx2, has_avx2},
#else
    {"amx", nullptr, nullptr},    {"avx512", nullptr, nullptr},      {"avx2", nullptr, nullptr},
#endif
    {"scalar", &kScalar, always}, {"amx-model", &kAmxModel, always},
};

const Set* find(const char* name) {
  for (const Set& set : kSets)
    if (strcmp(set.name, name) == 0) return &set;
  return nullptr;
}

std::atomic<const Kernels*> chosen{&kScalar};

}  // namespace

const Kernels& kernels() { return *chosen.load(std::memory_order_relaxed); }

bool built(const char* name) {
  const Set* set = find(name);
  return set && set->kernels;
}

bool runs_here(const char* name) {
  const Set* set = find(name);
  return set && set->kernels && set->runs_here();
}

Selection select(const char* name) {
  for (const Set& set : kSets) {
    if (name ? strcmp(set.name, name) != 0 : !runs_here(set.name)) continue;
    if (!set.kernels) return Selection::not_built;
    if (!set.runs_here()) return Selection::not_this_cpu;
    chosen.store(set.kernels, std::memory_order_relaxed);
    return Selection::ok;
  }
  return Selection::unknown;
}

}  // namespace codec
