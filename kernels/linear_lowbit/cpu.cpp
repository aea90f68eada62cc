// y[m, n] = residual[m, n] + bias[n] + x_scale[m] * sum_k x[m, k] * w[n, k], bf16, fp32 or fp16 in
// and out, fp32 inside, with w in codes of 1 to 8 bit (layout.py): read once as it lies, decoded in
// registers.
//
// A block of 16 rows of w meets all rows of x before the next block is read. The instruction set is
// chosen at run time: vectors.h is compiled for AVX-512 with and without bf16 products, plain.h
// for AVX2 and for any processor, and for all that is not bf16. OpenMP splits the row blocks over threads.

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "form.h"

namespace lowbit {
namespace {

constexpr int kPlainRows = 16;  // rows of x at a time in plain.h

#if defined(__x86_64__)

constexpr int kTile[] = {1, 2, 3, 4, 6, 8, 12};  // rows of x in a tile
constexpr int kTiles = 7;
constexpr int kTogether = 48;  // rows of x that meet a row block while it is in the cache

namespace avx512 {
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
using Number = float;
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
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
  const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
#include "vectors.h"
#undef TARGET
}  // namespace avx512_bf16

namespace avx2 {
#define TARGET FOR_AVX2
#define BYTES 32
using Floats = float __attribute__((vector_size(BYTES)));
using Words = uint32_t __attribute__((vector_size(BYTES)));
template <int WIDTH>
TARGET INLINE Floats look_up(const float* table, Words code) {
  const __m256i index = (__m256i)code;
  if constexpr (WIDTH > 4) return (Floats)_mm256_i32gather_ps(table, index, 4);
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
  if constexpr (WIDTH < 4) return (Floats)low;
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index);
  const __m256 which = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
  return (Floats)_mm256_blendv_ps(low, high, which);
}
#include "plain.h"
#undef TARGET
#undef BYTES
}  // namespace avx2

#endif

namespace scalar {
#define TARGET
#define BYTES 16
using Floats = float __attribute__((vector_size(BYTES)));
using Words = uint32_t __attribute__((vector_size(BYTES)));
template <int WIDTH>
TARGET INLINE Floats look_up(const float* table, Words code) {
  return Floats{table[code[0]], table[code[1]], table[code[2]], table[code[3]]};
}
#include "plain.h"
#undef TARGET
#undef BYTES
}  // namespace scalar

// What an instruction set does, and for how many rows of x at once.
struct Set {
  int64_t together;
  void (*span)(const Call&, int64_t, int64_t);
  void (*unpack)(const Form&, int64_t, int, uint16_t*);
};

Set set_of(const Form& f, int64_t kind) {
#if defined(__x86_64__)
  const int64_t isa = kind != kBf16 && f.isa > 1 ? 1 : f.isa;
  if (isa == 3) return {kTogether, avx512_bf16::span, avx512_bf16::loops_of(f.width).unpack};
  if (isa == 2) return {kTogether, avx512::span, avx512::loops_of(f.width).unpack};
  if (isa == 1) return {kPlainRows, avx2::span, avx2::unpack};
#endif
  return {kPlainRows, scalar::span, scalar::unpack};
}

}  // namespace
}  // namespace lowbit

using lowbit::Call;
using lowbit::Form;
using lowbit::kRows;

// The best instruction set of this processor, for Form::isa.
extern "C" int64_t lowbit_best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = HAS_AVX512 && HAS_AVX2;
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return 3;
  if (avx512) return 2;
  if (HAS_AVX2) return 1;
#endif
  return 0;
}

extern "C" void lowbit_part(const Call* call, int64_t share, int64_t shares) {
  const Form& f = *call->form;
  const lowbit::Set set = lowbit::set_of(f, call->kind);
  const int64_t begin = f.row_blocks() * share / shares;
  const int64_t end = f.row_blocks() * (share + 1) / shares;
  for (int64_t m = 0; m < call->rows && begin < end; m += set.together) {
    const int64_t some = call->rows - m < set.together ? call->rows - m : set.together;
    set.span(call->part(m, some), begin, end);
  }
}

extern "C" void lowbit_product(const Call* call, int64_t threads) {
  const Form& f = *call->form;
  // Waking a second thread costs about as much as reading 32 KB.
  if (threads <= 1 || f.n * f.k * f.width * call->rows < (1 << 18)) {
    lowbit_part(call, 0, 1);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t t = 0; t < threads; ++t) lowbit_part(call, t, threads);
}

// Rows [begin, end) of w as bf16, [end - begin, k]; begin is a multiple of 16.
extern "C" void lowbit_unpack(const Form* form, int64_t begin, int64_t end, uint16_t* out,
                              int64_t threads) {
  const Form& f = *form;
  const lowbit::Set set = lowbit::set_of(f, kBf16);
  const int64_t first = begin / kRows, last = (end + kRows - 1) / kRows;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t block = first; block < last; ++block) {
    const int64_t n = block * kRows;
    const int count = static_cast<int>(end - n < kRows ? end - n : kRows);
    set.unpack(f, block, count, out + (n - begin) * f.k);
  }
}
