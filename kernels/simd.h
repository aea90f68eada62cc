// Owns what the CPU kernels share: number formats, a vectorizable exponential, the run-time choice
// of instruction set. Loops are written plainly; the compiler vectorizes them once per target.
#pragma once

#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define FOR_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512")))
#define FOR_AVX2 __attribute__((target("avx2,fma")))
#define HAS_AVX512                                                                 \
  (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&      \
   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&     \
   __builtin_cpu_supports("fma"))
#define HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define FOR_AVX512
#define FOR_AVX2
#define HAS_AVX512 false
#define HAS_AVX2 false
#endif

struct bf16 {
  uint16_t bits;
};

struct fp16 {
  uint16_t bits;
};

// How records name the type of x and y.
enum Kind : int64_t { kFloat, kBf16, kHalf };

INLINE float load(float x) { return x; }

INLINE float load(bf16 x) { return __builtin_bit_cast(float, (uint32_t)x.bits << 16); }

INLINE void store(float& to, float x) { to = x; }

// Round to nearest even; a NaN stays a NaN.
INLINE void store(bf16& to, float x) {
  uint32_t bits = __builtin_bit_cast(uint32_t, x);
  uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = (uint16_t)(x != x ? 0x7fc0u : rounded);
}

// In whole numbers and selects, so that it vectorizes where there is no F16C.
INLINE float load(fp16 x) {
  const uint32_t size = x.bits & 0x7fffu, sign = (uint32_t)(x.bits & 0x8000u) << 16;
  const uint32_t bias = size >= 0x7c00u ? 224u << 23 : 112u << 23;
  const float tiny = (float)(int32_t)size * 0x1p-24f;
  const uint32_t normal = (size << 13) + bias;
  const uint32_t bits = size < 0x400u ? __builtin_bit_cast(uint32_t, tiny) : normal;
  return __builtin_bit_cast(float, bits | sign);
}

// Round to nearest even; 65,520 and above become infinite, a NaN stays a NaN.
INLINE void store(fp16& to, float x) {
  const uint32_t all = __builtin_bit_cast(uint32_t, x);
  const uint32_t bits = all & 0x7fffffffu;
  // Next to 1/2 the steps of fp32 are those of fp16's smallest numbers: the sum is rounded.
  const float near = __builtin_bit_cast(float, bits) + 0.5f;
  const uint32_t tiny = __builtin_bit_cast(uint32_t, near) - 0x3f000000u;
  const uint32_t normal = (bits + 0xfffu + ((bits >> 13) & 1u) - (112u << 23)) >> 13;
  uint32_t size = bits < 0x38800000u ? tiny : normal;
  size = bits >= 0x477ff000u ? 0x7c00u : size;
  size = bits > 0x7f800000u ? 0x7e00u : size;
  to.bits = (uint16_t)(size | (all >> 16 & 0x8000u));
}

// exp(x) within 2 ulp: 2^n * p(r), Cephes' polynomial of degree 5 on |r| <= ln(2) / 2.
INLINE float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float t = x * 1.44269504088896341f;
  int32_t n = (int32_t)(t + (t < 0 ? -0.5f : 0.5f));
  float fn = (float)n;
  float r = x - fn * 0.693359375f + fn * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * __builtin_bit_cast(float, (n + 127) << 23);
}
