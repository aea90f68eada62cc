// y[m, n] = residual[m, n] + bias[n] + sum_k x[m, k] * w[n, k], bf16 in and out, fp32 inside.
//
// For few rows of x (decoding), where the time is that of reading w once. A block of eight rows of
// w meets every tile of x before the next block is read, and that next block is fetched meanwhile.
// The instruction set is chosen at run time; OpenMP splits the rows of w over threads.

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int kTile = 8;   // rows of x in one tile, at most
constexpr int kBlock = 8;  // rows of w in one block
constexpr int kRows = 16;  // rows of x that meet a block while it is in the cache

struct Dense {
  const uint16_t* w;     // [n, k], rows k apart
  const uint16_t* bias;  // [n] or null
  int64_t n, k;
  int64_t isa;  // 0 scalar, 1 avx2, 2 avx512, 3 avx512_bf16
};

// out[m * kBlock + r] = sum_k x[m, k] * w[r, k] for r < count. `ahead` is how many elements past
// w the next block begins, to have it fetched meanwhile; 0 when there is nothing to fetch.
using Tile = void (*)(const uint16_t* w, const uint16_t* x, int64_t k, int count, int64_t ahead,
                      float* out);

// y[n..] = narrow(sums + bias + residual) for `count` outputs of one row of x.
using Finish = void (*)(const float* sums, const uint16_t* bias, const uint16_t* residual,
                        uint16_t* y, int count);

#define INLINE inline __attribute__((always_inline))

INLINE float widen(uint16_t value) {
  uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

// Round to nearest even; a NaN stays one.
INLINE uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

INLINE void finish(const float* sums, const uint16_t* bias, const uint16_t* residual, uint16_t* y,
                   int count) {
  float total[kBlock];
  for (int r = 0; r < count; ++r) total[r] = sums[r];
  if (bias)
    for (int r = 0; r < count; ++r) total[r] += widen(bias[r]);
  if (residual)
    for (int r = 0; r < count; ++r) total[r] += widen(residual[r]);
  for (int r = 0; r < count; ++r) y[r] = narrow(total[r]);
}

// The whole block apart, so that the compiler sees a constant count and vectorizes.
INLINE void finish_block(const float* sums, const uint16_t* bias, const uint16_t* residual,
                         uint16_t* y, int count) {
  if (count == kBlock)
    finish(sums, bias, residual, y, kBlock);
  else
    finish(sums, bias, residual, y, count);
}

void finish_scalar(const float* sums, const uint16_t* bias, const uint16_t* residual, uint16_t* y,
                   int count) {
  finish_block(sums, bias, residual, y, count);
}

template <int M, int R>
void tile_scalar(const uint16_t* w, const uint16_t* x, int64_t k, int count, int64_t, float* out) {
  for (int r = 0; r < count; ++r) {
    float sum[M] = {};
    for (int64_t i = 0; i < k; ++i)
      for (int m = 0; m < M; ++m) sum[m] += widen(x[m * k + i]) * widen(w[r * k + i]);
    for (int m = 0; m < M; ++m) out[m * kBlock + r] = sum[m];
  }
}

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,fma")))
#define AVX512BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")))

AVX2 void finish_avx2(const float* sums, const uint16_t* bias, const uint16_t* residual,
                      uint16_t* y, int count) {
  finish_block(sums, bias, residual, y, count);
}

AVX2 inline float sum8(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// The sums of four vectors, as four lanes.
AVX2 inline __m128 sum8x4(__m256 a, __m256 b, __m256 c, __m256 d) {
  __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

template <int M, int R>
AVX2 inline void store(const __m256 (&acc)[M][R], float* out) {
  for (int m = 0; m < M; ++m) {
    int r = 0;
    for (; r + 4 <= R; r += 4)
      _mm_storeu_ps(out + m * kBlock + r,
                    sum8x4(acc[m][r], acc[m][r + 1], acc[m][r + 2], acc[m][r + 3]));
    if (R % 4 == 2) {
      // Two rows of x share one reduction; an odd last one is its own partner.
      const int other = m + 1 < M ? m + 1 : m;
      __m128 s = sum8x4(acc[m][r], acc[m][r + 1], acc[other][r], acc[other][r + 1]);
      _mm_storel_pi(reinterpret_cast<__m64*>(out + m * kBlock + r), s);
      _mm_storeh_pi(reinterpret_cast<__m64*>(out + other * kBlock + r), s);
      if (R == 2) ++m;
    } else {
      for (; r < R; ++r) out[m * kBlock + r] = sum8(acc[m][r]);
    }
  }
}

template <int M, int R>
AVX2 inline void rows_avx2(const uint16_t* w, const uint16_t* x, int64_t k, int64_t ahead,
                           float* out) {
  __m256 acc[M][R];
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) acc[m][r] = _mm256_setzero_ps();
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    __m256 even[M], odd[M];
    for (int m = 0; m < M; ++m) {
      __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + m * k + i));
      even[m] = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
      odd[m] = _mm256_castsi256_ps(_mm256_and_si256(v, high));
    }
    for (int r = 0; r < R; ++r) {
      const uint16_t* at = w + r * k + i;
      if (ahead) __builtin_prefetch(at + ahead);
      __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
      __m256 low = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
      __m256 top = _mm256_castsi256_ps(_mm256_and_si256(v, high));
      for (int m = 0; m < M; ++m) {
        acc[m][r] = _mm256_fmadd_ps(low, even[m], acc[m][r]);
        acc[m][r] = _mm256_fmadd_ps(top, odd[m], acc[m][r]);
      }
    }
  }
  store<M, R>(acc, out);
  for (; i < k; ++i)
    for (int m = 0; m < M; ++m)
      for (int r = 0; r < R; ++r) out[m * kBlock + r] += widen(x[m * k + i]) * widen(w[r * k + i]);
}

AVX512 inline __m256 halve(__m512 v) {
  __m256 top = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
  return _mm256_add_ps(_mm512_castps512_ps256(v), top);
}

template <int M, int R>
AVX512 inline void store(const __m512 (&acc)[M][R], float* out) {
  __m256 half[M][R];
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) half[m][r] = halve(acc[m][r]);
  store<M, R>(half, out);
}

template <int M, int R>
AVX512 inline void rows_avx512(const uint16_t* w, const uint16_t* x, int64_t k, int64_t ahead,
                               float* out) {
  __m512 acc[M][R];
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) acc[m][r] = _mm512_setzero_ps();
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  for (int64_t i = 0; i < k; i += 32) {
    const __mmask32 mask = k - i >= 32 ? 0xffffffffu : (1u << (k - i)) - 1u;
    __m512 even[M], odd[M];
    for (int m = 0; m < M; ++m) {
      __m512i v = _mm512_maskz_loadu_epi16(mask, x + m * k + i);
      even[m] = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
      odd[m] = _mm512_castsi512_ps(_mm512_and_si512(v, high));
    }
    for (int r = 0; r < R; ++r) {
      const uint16_t* at = w + r * k + i;
      if (ahead) __builtin_prefetch(at + ahead);
      __m512i v = _mm512_maskz_loadu_epi16(mask, at);
      __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
      __m512 top = _mm512_castsi512_ps(_mm512_and_si512(v, high));
      for (int m = 0; m < M; ++m) {
        acc[m][r] = _mm512_fmadd_ps(low, even[m], acc[m][r]);
        acc[m][r] = _mm512_fmadd_ps(top, odd[m], acc[m][r]);
      }
    }
  }
  store<M, R>(acc, out);
}

template <int M, int R>
AVX512BF16 inline void rows_avx512bf16(const uint16_t* w, const uint16_t* x, int64_t k,
                                       int64_t ahead, float* out) {
  __m512 acc[M][R];
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) acc[m][r] = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 32 <= k; i += 32) {
    __m512i v[M];
    for (int m = 0; m < M; ++m) v[m] = _mm512_loadu_si512(x + m * k + i);
    for (int r = 0; r < R; ++r) {
      const uint16_t* at = w + r * k + i;
      if (ahead) __builtin_prefetch(at + ahead);
      const __m512i u = _mm512_loadu_si512(at);
      for (int m = 0; m < M; ++m)
        acc[m][r] = _mm512_dpbf16_ps(acc[m][r], (__m512bh)u, (__m512bh)v[m]);
    }
  }
  if (i < k) {
    const __mmask32 mask = (1u << (k - i)) - 1u;
    __m512i v[M];
    for (int m = 0; m < M; ++m) v[m] = _mm512_maskz_loadu_epi16(mask, x + m * k + i);
    for (int r = 0; r < R; ++r) {
      const __m512i u = _mm512_maskz_loadu_epi16(mask, w + r * k + i);
      for (int m = 0; m < M; ++m)
        acc[m][r] = _mm512_dpbf16_ps(acc[m][r], (__m512bh)u, (__m512bh)v[m]);
    }
  }
  store<M, R>(acc, out);
}

// A block: R rows of w at a time, then the rest one by one. `rows<M, 0>` would not compile, so
// the three instruction sets repeat this loop.
#define TILE_LOOP(tag, name, rows)                                                            \
  template <int M, int R>                                                                     \
  tag void name(const uint16_t* w, const uint16_t* x, int64_t k, int count, int64_t ahead,    \
                float* out) {                                                                 \
    int r = 0;                                                                                \
    for (; r + R <= count; r += R) {                                                          \
      if (ahead)                                                                              \
        rows<M, R>(w + r * k, x, k, ahead, out + r);                                          \
      else                                                                                    \
        rows<M, R>(w + r * k, x, k, 0, out + r);                                              \
    }                                                                                         \
    for (; r < count; ++r) rows<M, 1>(w + r * k, x, k, 0, out + r);                           \
  }
TILE_LOOP(AVX2, tile_avx2, rows_avx2)
TILE_LOOP(AVX512, tile_avx512, rows_avx512)
TILE_LOOP(AVX512BF16, tile_avx512bf16, rows_avx512bf16)

#endif

// The tiles of one instruction set by their rows of x, and how outputs are rounded.
struct Tiles {
  int widest;
  Tile of[kTile + 1];
  Finish finish;
};

// The second number, rows of w at a time, is what the registers of the instruction set hold.
const Tiles kScalar = {
    4, {nullptr, tile_scalar<1, 1>, tile_scalar<2, 1>, tile_scalar<3, 1>, tile_scalar<4, 1>},
    finish_scalar};
#if defined(__x86_64__)
const Tiles kAvx2 = {
    4, {nullptr, tile_avx2<1, 8>, tile_avx2<2, 4>, tile_avx2<3, 2>, tile_avx2<4, 2>}, finish_avx2};
const Tiles kAvx512 = {
    4, {nullptr, tile_avx512<1, 8>, tile_avx512<2, 8>, tile_avx512<3, 4>, tile_avx512<4, 4>},
    finish_avx2};
const Tiles kAvx512Bf16 = {
    8, {nullptr, tile_avx512bf16<1, 8>, tile_avx512bf16<2, 8>, tile_avx512bf16<3, 8>,
        tile_avx512bf16<4, 4>, tile_avx512bf16<5, 4>, tile_avx512bf16<6, 4>,
        tile_avx512bf16<7, 2>, tile_avx512bf16<8, 2>},
    finish_avx2};
#endif

const Tiles& tiles_of(int64_t isa) {
#if defined(__x86_64__)
  if (isa == 3) return kAvx512Bf16;
  if (isa == 2) return kAvx512;
  if (isa == 1) return kAvx2;
#endif
  return kScalar;
}

// Rows [begin, end) of w against at most kRows rows of x.
void span(const Dense& d, const Tiles& tiles, const uint16_t* x, const uint16_t* residual,
          uint16_t* y, int rows, int64_t begin, int64_t end) {
  float sums[kRows * kBlock];
  for (int64_t n = begin; n < end; n += kBlock) {
    const int count = static_cast<int>(end - n < kBlock ? end - n : kBlock);
    const int64_t ahead = end - n >= 2 * kBlock ? kBlock * d.k : 0;
    for (int m = 0; m < rows;) {
      const int tile = rows - m < tiles.widest ? rows - m : tiles.widest;
      tiles.of[tile](d.w + n * d.k, x + m * d.k, d.k, count, m ? 0 : ahead, sums + m * kBlock);
      m += tile;
    }
    for (int m = 0; m < rows; ++m) {
      const int64_t at = m * d.n + n;
      tiles.finish(sums + m * kBlock, d.bias ? d.bias + n : nullptr,
                   residual ? residual + at : nullptr, y + at, count);
    }
  }
}

void all_rows(const Dense& d, const uint16_t* x, const uint16_t* residual, uint16_t* y,
              int64_t rows, int64_t begin, int64_t end) {
  for (int64_t m = 0; m < rows; m += kRows) {
    const int some = static_cast<int>(rows - m < kRows ? rows - m : kRows);
    span(d, tiles_of(d.isa), x + m * d.k, residual ? residual + m * d.n : nullptr, y + m * d.n,
         some, begin, end);
  }
}

}  // namespace

// The best instruction set of this processor, for Dense::isa.
extern "C" int64_t gemv_best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return 3;
  if (avx512) return 2;
  if (avx2) return 1;
#endif
  return 0;
}

// One call with its arguments, for kernels/program.cpp.
struct Bound {
  const Dense* dense;
  const uint16_t* x;
  const uint16_t* residual;
  uint16_t* y;
  int64_t rows;
};

// Every thread gets whole blocks, so that only the last one has a remainder.
extern "C" void gemv_bf16_part(const Bound* call, int64_t thread, int64_t threads) {
  const Dense& d = *call->dense;
  const int64_t blocks = (d.n + kBlock - 1) / kBlock;
  const int64_t begin = blocks * thread / threads * kBlock;
  const int64_t end = thread + 1 == threads ? d.n : blocks * (thread + 1) / threads * kBlock;
  all_rows(d, call->x, call->residual, call->y, call->rows, begin, end);
}

// x [rows, k], residual (or null) and y [rows, n], all contiguous; y may be residual.
extern "C" void gemv_bf16(const Dense* dense, const uint16_t* x, const uint16_t* residual,
                          uint16_t* y, int64_t rows, int64_t threads) {
  const Dense d = *dense;
  // Waking a second thread costs about as much as reading 32 KB.
  if (threads <= 1 || d.n * d.k < (1 << 15)) {
    all_rows(d, x, residual, y, rows, 0, d.n);
    return;
  }
  const Bound call = {dense, x, residual, y, rows};
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t t = 0; t < threads; ++t) gemv_bf16_part(&call, t, threads);
}
