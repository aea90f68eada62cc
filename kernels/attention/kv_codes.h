// Codes of a KV cache: quantizing a block of tokens when it is complete, decoding one into a buffer
// that stays in the first-level cache. The layout is that of kernels/kv_codes/codes.py.
#pragma once

#include "heads.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// fp16 by its bits, for any instruction set. Infinities do not occur: what is stored is clamped.
INLINE float load_half(uint16_t h) {
  const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
  const float value = __builtin_bit_cast(float, magnitude) * 0x1p112f;
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
  const uint32_t nan = (h & 0x7fff) > 0x7c00 ? 0x7fc00000u : 0u;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, value) | sign | nan);
}

// Rounds to nearest even, clamps to +-65504, keeps a NaN.
INLINE uint16_t store_half(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (size >= 0x477fe000u) return (uint16_t)(sign | 0x7bffu);
  if (size < 0x38800000u) {
    const float small = __builtin_bit_cast(float, size) + 0.5f;
    return (uint16_t)(sign | (__builtin_bit_cast(uint32_t, small) - 0x3f000000u));
  }
  return (uint16_t)(sign | ((size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13));
}

// The scale and the minimum of a group as they are kept, from its smallest and largest number;
// `poison` is NaN when the group holds an infinity or a NaN.
struct Group {
  float scale, low;
};

INLINE Group keep_group(float low, float high, float poison, int levels, uint16_t* scale,
                        uint16_t* minimum) {
  const uint16_t kept_scale = store_half((high - low) / (float)levels), kept_low = store_half(low);
  *scale = kept_scale;
  *minimum = store_half(load_half(kept_low) + poison);
  return {load_half(kept_scale), load_half(kept_low)};
}

// The comparisons are so that a NaN becomes code 0.
INLINE uint8_t code_of(float x, Group group, float levels) {
  float code = group.scale > 0 ? __builtin_rintf((x - group.low) / group.scale) : 0.0f;
  code = code > 0 ? code : 0.0f;
  return (uint8_t)(code < levels ? code : levels);
}

// Keys [size, dim], one group for each channel. `buffer` is 3 * dim floats.
INLINE void encode_keys(const float* keys, int bits, int64_t size, int64_t dim, uint8_t* codes,
                        uint16_t* scale, float* buffer) {
  const int levels = (1 << bits) - 1;
  const int64_t bytes = size * bits / 8;
  float *low = buffer, *high = low + dim, *poison = high + dim;
  for (int64_t i = 0; i < dim; i++) low[i] = high[i] = keys[i], poison[i] = 0;
  for (int64_t s = 0; s < size; s++)
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) {
      const float x = keys[s * dim + i];
      low[i] = x < low[i] ? x : low[i];
      high[i] = x > high[i] ? x : high[i];
      poison[i] += x * 0.0f;
    }
  for (int64_t i = 0; i < dim; i++) {
    const Group group =
        keep_group(low[i], high[i], poison[i], levels, scale + i, scale + dim + i);
    uint8_t* to = codes + i * bytes;
    for (int64_t j = 0; j < bytes; j++) {
      uint32_t byte = 0;
      for (int p = 0; p < 8 / bits; p++)
        byte |= (uint32_t)code_of(keys[(p * bytes + j) * dim + i], group, levels) << (p * bits);
      to[j] = (uint8_t)byte;
    }
  }
}

// One token's value [dim], a group for each `size` channels.
INLINE void encode_value(const float* value, int bits, int64_t size, int64_t dim,
                         uint8_t* codes, uint16_t* scale) {
  const int levels = (1 << bits) - 1;
  const int64_t bytes = (dim * bits + 7) / 8, groups = (dim + size - 1) / size;
  memset(codes, 0, bytes);
  for (int64_t g = 0; g < groups; g++) {
    const int64_t from = g * size, to = from + size < dim ? from + size : dim;
    float low = value[from], high = low, poison = 0;
    for (int64_t i = from; i < to; i++) {
      low = value[i] < low ? value[i] : low;
      high = value[i] > high ? value[i] : high;
      poison += value[i] * 0.0f;
    }
    const Group group = keep_group(low, high, poison, levels, scale + g, scale + groups + g);
    for (int64_t i = from; i < to; i++)
      codes[i % bytes] |= (uint8_t)(code_of(value[i], group, levels) << (i / bytes * bits));
  }
}

INLINE void load_halves(const uint16_t* from, int64_t count, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = load_half(from[i]);
}

// A block's keys as floats [dim, SIZE]; `scales` is 2 * dim floats.
template <int BITS, int SIZE>
INLINE void decode_keys(const uint8_t* codes, const uint16_t* kept, int64_t dim, float* scales,
                        float* to) {
  constexpr int bytes = SIZE * BITS / 8, mask = (1 << BITS) - 1;
  load_halves(kept, 2 * dim, scales);
  for (int64_t i = 0; i < dim; i++) {
    const uint8_t* from = codes + i * bytes;
    const float scale = scales[i], low = scales[dim + i];
    for (int p = 0; p < 8 / BITS; p++)
#pragma omp simd
      for (int j = 0; j < bytes; j++)
        to[i * SIZE + p * bytes + j] = (float)((from[j] >> (p * BITS)) & mask) * scale + low;
  }
}

// A block's values as floats [SIZE, width]; `scales` is SIZE * 2 * groups floats.
template <int BITS, int SIZE>
INLINE void decode_values(const uint8_t* codes, const uint16_t* kept, int64_t dim, int64_t width,
                          float* scales, float* to) {
  constexpr int mask = (1 << BITS) - 1;
  const int64_t bytes = (dim * BITS + 7) / 8, groups = (dim + SIZE - 1) / SIZE;
  load_halves(kept, SIZE * 2 * groups, scales);
  for (int s = 0; s < SIZE; s++, codes += bytes, to += width, scales += 2 * groups)
    for (int p = 0; p < 8 / BITS; p++) {
      const int64_t first = p * bytes, count = first + bytes < dim ? bytes : dim - first;
      int64_t j = 0;
      // Sixteen channels that begin at a multiple of 16 lie in one group.
      if (first % 16 == 0)
        for (; j + 16 <= count; j += 16) {
          const int64_t g = (first + j) / SIZE;
          const float scale = scales[g], low = scales[groups + g];
#pragma omp simd
          for (int v = 0; v < 16; v++)
            to[first + j + v] = (float)((codes[j + v] >> (p * BITS)) & mask) * scale + low;
        }
      for (; j < count; j++) {
        const int64_t g = (first + j) / SIZE;
        to[first + j] =
            (float)((codes[j] >> (p * BITS)) & mask) * scales[g] + scales[groups + g];
      }
    }
}

#if defined(__x86_64__)
// The same with a permutation as table: a group's 2^BITS numbers lie in one vector, repeated as far
// as it goes, so that the bits of neighbouring codes in an index do not matter.

FOR_AVX512 static inline void load_halves_avx512(const uint16_t* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 some = count - i >= 16 ? 0xffff : (__mmask16)((1u << (count - i)) - 1);
    _mm512_mask_storeu_ps(to + i, some, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, from + i)));
  }
}

// The numbers of a group by their codes; for 8 bits the code itself is multiplied.
template <int BITS>
FOR_AVX512 static inline __m512 numbers(float scale, float low) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i code = _mm512_and_si512(lane, _mm512_set1_epi32((1 << BITS) - 1));
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(code), _mm512_set1_ps(scale), _mm512_set1_ps(low));
}

template <int BITS, int SIZE>
FOR_AVX512 static void decode_keys_avx512(const uint8_t* codes, const uint16_t* kept, int64_t dim,
                                          float* scales, float* to) {
  constexpr int bytes = SIZE * BITS / 8;
  load_halves_avx512(kept, 2 * dim, scales);
  for (int64_t i = 0; i < dim; i++, codes += bytes, to += SIZE) {
    if constexpr (BITS == 8) {
      const __m512 scale = _mm512_set1_ps(scales[i]), low = _mm512_set1_ps(scales[dim + i]);
      for (int j = 0; j < bytes; j += 16) {
        const __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(codes + j)));
        _mm512_storeu_ps(to + j, _mm512_fmadd_ps(_mm512_cvtepi32_ps(code), scale, low));
      }
    } else if constexpr (bytes == 8) {
      const __m512 table = numbers<BITS>(scales[i], scales[dim + i]);
      const __m128i twice = _mm_set1_epi64x(*(const int64_t*)codes);
      const __m512i index = _mm512_cvtepu8_epi32(twice);
      const __m512i even = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
      const __m512i odd = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6);
      _mm512_storeu_ps(to, _mm512_permutexvar_ps(_mm512_srlv_epi32(index, even), table));
      _mm512_storeu_ps(to + 16, _mm512_permutexvar_ps(_mm512_srlv_epi32(index, odd), table));
    } else {
      const __m512 table = numbers<BITS>(scales[i], scales[dim + i]);
      for (int j = 0; j < bytes; j += 16) {
        const __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(codes + j)));
        for (int p = 0; p < 8 / BITS; p++)
          _mm512_storeu_ps(to + p * bytes + j,
                           _mm512_permutexvar_ps(_mm512_srli_epi32(index, p * BITS), table));
      }
    }
  }
}

// For channels that fill whole vectors in every bit position; else the plain code is taken.
template <int BITS, int SIZE>
FOR_AVX512 static void decode_values_avx512(const uint8_t* codes, const uint16_t* kept, int64_t dim,
                                            int64_t width, float* scales, float* to) {
  if (dim % (16 * 8 / BITS)) return decode_values<BITS, SIZE>(codes, kept, dim, width, scales, to);
  const int64_t bytes = dim * BITS / 8, groups = (dim + SIZE - 1) / SIZE;
  load_halves_avx512(kept, SIZE * 2 * groups, scales);
  for (int s = 0; s < SIZE; s++, codes += bytes, to += width, scales += 2 * groups)
    for (int p = 0; p < 8 / BITS; p++)
      for (int64_t j = 0; j < bytes; j += 16) {
        const int64_t g = (p * bytes + j) / SIZE;
        const __m512i index = _mm512_srli_epi32(
            _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(codes + j))), p * BITS);
        const __m512 value =
            BITS == 8 ? _mm512_fmadd_ps(_mm512_cvtepi32_ps(index), _mm512_set1_ps(scales[g]),
                                        _mm512_set1_ps(scales[groups + g]))
                      : _mm512_permutexvar_ps(index, numbers<BITS>(scales[g], scales[groups + g]));
        _mm512_storeu_ps(to + p * bytes + j, value);
      }
}
#endif
