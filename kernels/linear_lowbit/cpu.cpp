// y[m, n] = residual[m, n] + bias[n] + sum_k x[m, k] * w[n, k], bf16 in and out, fp32 inside, with
// w in codes of 1 to 8 bit (layout.py): read once as it lies, decoded in registers.
//
// A block of 16 rows of w meets all rows of x before the next block is read. The instruction set is
// chosen at run time: vectors.h is compiled for AVX-512 with and without bf16 products, plain.h
// for AVX2 and for any processor. OpenMP splits the row blocks over threads.

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "form.h"
#include "plain.h"

namespace lowbit {
namespace {

constexpr int kTile[] = {0, 1, 2, 4, 8, 12};  // rows of x in a tile
constexpr int kTiles = 5;
constexpr int kTogether = 48;  // rows of x that meet a row block while it is in the cache

#if defined(__x86_64__)

namespace avx512 {
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
using Number = float;
struct Loops {
  void (*tile[kTiles + 1])(const Form&, int64_t, const Number*, const float*, float*);
  void (*unpack)(const Form&, int64_t, int, uint16_t*);
};
TARGET INLINE __m512 dot(__m512 sum, __m512i w, const Number* x) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), _mm512_set1_ps(x[0]), sum);
  return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(w, high)), _mm512_set1_ps(x[1]), sum);
}
TARGET INLINE void put(Number* to, __m512 v) { _mm512_storeu_ps(to, v); }
TARGET INLINE __m512i rounded(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
}
TARGET INLINE __m512i narrow_pairs(__m512 even, __m512 odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(rounded(even), 16), rounded(odd));
}
#include "vectors.h"
#undef TARGET
}  // namespace avx512

namespace avx512_bf16 {
#define TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")))
using Number = uint16_t;
struct Loops {
  void (*tile[kTiles + 1])(const Form&, int64_t, const Number*, const float*, float*);
  void (*unpack)(const Form&, int64_t, int, uint16_t*);
};
TARGET INLINE __m512 dot(__m512 sum, __m512i w, const Number* x) {
  int32_t pair;
  std::memcpy(&pair, x, 4);
  return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(pair));
}
TARGET INLINE void put(Number* to, __m512 v) {
  const __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(v), 16);
  _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16(bits));
}
TARGET INLINE __m512i narrow_pairs(__m512 even, __m512 odd) {
  const __m512i low = _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh(even));
  const __m512i high = _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(low)),
                         _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(high)), 16));
}
#include "vectors.h"
#undef TARGET
}  // namespace avx512_bf16

template <typename Loops>
struct Vectors;

#endif

thread_local Scratch x_memory, sums_memory;

// Everything that differs between instruction sets, for row blocks [begin, end).
struct Call {
  const Form* form;
  const uint16_t* x;
  const uint16_t* residual;
  uint16_t* y;
  int64_t rows;
};

#if defined(__x86_64__)
#define SPAN(space)                                                                              \
  void span_##space(const Form& f, const uint16_t* x, const uint16_t* residual, uint16_t* y,     \
                    int64_t rows, int64_t begin, int64_t end) {                                  \
    using namespace space;                                                                       \
    static const Loops kLoops[9] = {{},              of_width<1>(), of_width<2>(),               \
                                    of_width<3>(),   of_width<4>(), of_width<5>(),               \
                                    of_width<6>(),   {},            of_width<8>()};              \
    const Loops& loops = kLoops[f.width];                                                        \
    const int64_t columns = f.column_blocks() * kColumns;                                        \
    const bool zeros = f.zero_format != kNone || f.shift != 0;                                   \
    const bool as_is = sizeof(Number) == 2 && rows == 1 && f.k == columns;                       \
    int sizes[kTogether], tiles = 0;                                                             \
    int64_t all = 0;                                                                             \
    for (int64_t m = 0; m < rows; m += kTile[sizes[tiles++]]) {                                  \
      int size = 1;                                                                              \
      while (size < kTiles && kTile[size] < rows - m) ++size;                                    \
      sizes[tiles] = size;                                                                       \
      all = m + kTile[size];                                                                     \
    }                                                                                            \
    Number* packed = as_is ? nullptr                                                             \
                           : static_cast<Number*>(x_memory.take(all * columns * sizeof(Number))); \
    float* sums = zeros ? static_cast<float*>(sums_memory.take(all * f.groups * 4)) : nullptr;   \
    if (zeros || !as_is)                                                                         \
      for (int64_t t = 0, m = 0; t < tiles; m += kTile[sizes[t++]])                              \
        ready(f, x + m * f.k, static_cast<int>(rows - m), kTile[sizes[t]],                       \
              packed ? packed + m * columns : nullptr, sums ? sums + m * f.groups : nullptr);    \
    const Number* from = as_is ? (const Number*)x : packed;                                      \
    alignas(64) float out[kTile[kTiles] * kRows];                                                \
    for (int64_t block = begin; block < end; ++block) {                                          \
      const int64_t n = block * kRows;                                                           \
      const int count = static_cast<int>(f.n - n < kRows ? f.n - n : kRows);                     \
      for (int64_t t = 0, m = 0; t < tiles; m += kTile[sizes[t++]]) {                            \
        loops.tile[sizes[t]](f, block, from + m * columns, sums ? sums + m * f.groups : nullptr, \
                             out);                                                               \
        for (int i = 0; i < kTile[sizes[t]] && m + i < rows; ++i) {                              \
          const int64_t at = (m + i) * f.n + n;                                                  \
          finish(out + kRows * i, f.bias ? f.bias + n : nullptr,                                 \
                 residual ? residual + at : nullptr, y + at, count);                             \
        }                                                                                        \
      }                                                                                          \
    }                                                                                            \
  }
#endif
}  // namespace
}  // namespace lowbit
