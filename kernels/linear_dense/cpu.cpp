// y[m, n] = residual[m, n] + bias[n] + sum_k x[m, k] * w[n, k], bf16 in and out, fp32 inside.
//
// For few rows of x (decoding), where the time is that of reading w once. Blocks of R rows of w
// meet tiles of up to four rows of x, so a block comes from memory once and from cache afterwards.
// The instruction set is chosen at run time; OpenMP splits the blocks over threads.

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int kMaxRows = 4;   // rows of x in one tile
constexpr int kMaxBlock = 8;  // rows of w in one block

struct Dense {
  const uint16_t* w;     // [n, k], rows k apart
  const uint16_t* bias;  // [n] or null
  int64_t n, k;
  int64_t isa;  // 0 scalar, 1 avx2, 2 avx512, 3 avx512_bf16
};

// out[m * kMaxBlock + r] = sum_k x[m, k] * w[r, k]
using Tile = void (*)(const uint16_t* w, const uint16_t* x, int64_t k, float* out);

inline float widen(uint16_t value) {
  uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <int M, int R>
void tile_scalar(const uint16_t* w, const uint16_t* x, int64_t k, float* out) {
  float sum[M][R] = {};
  for (int64_t i = 0; i < k; ++i)
    for (int r = 0; r < R; ++r)
      for (int m = 0; m < M; ++m) sum[m][r] += widen(x[m * k + i]) * widen(w[r * k + i]);
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) out[m * kMaxBlock + r] = sum[m][r];
}

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,fma")))
#define AVX512BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")))

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
AVX2 void tile_avx2(const uint16_t* w, const uint16_t* x, int64_t k, float* out) {
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
      __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + r * k + i));
      __m256 low = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
      __m256 top = _mm256_castsi256_ps(_mm256_and_si256(v, high));
      for (int m = 0; m < M; ++m) {
        acc[m][r] = _mm256_fmadd_ps(low, even[m], acc[m][r]);
        acc[m][r] = _mm256_fmadd_ps(top, odd[m], acc[m][r]);
      }
    }
  }
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) {
      float sum = sum8(acc[m][r]);
      for (int64_t j = i; j < k; ++j) sum += widen(x[m * k + j]) * widen(w[r * k + j]);
      out[m * kMaxBlock + r] = sum;
    }
}

AVX512 inline __m256 halve(__m512 v) {
  __m256 top = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
  return _mm256_add_ps(_mm512_castps512_ps256(v), top);
}

template <int M, int R>
AVX512 inline void store512(__m512 (&acc)[M][R], float* out) {
  for (int m = 0; m < M; ++m) {
    int r = 0;
    for (; r + 4 <= R; r += 4)
      _mm_storeu_ps(out + m * kMaxBlock + r,
                    sum8x4(halve(acc[m][r]), halve(acc[m][r + 1]), halve(acc[m][r + 2]),
                           halve(acc[m][r + 3])));
    for (; r < R; ++r) out[m * kMaxBlock + r] = sum8(halve(acc[m][r]));
  }
}

template <int M, int R>
AVX512 void tile_avx512(const uint16_t* w, const uint16_t* x, int64_t k, float* out) {
  __m512 acc[M][R];
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) acc[m][r] = _mm512_setzero_ps();
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  for (int64_t i = 0; i < k; i += 32) {
    __mmask32 mask = k - i >= 32 ? 0xffffffffu : (1u << (k - i)) - 1u;
    __m512 even[M], odd[M];
    for (int m = 0; m < M; ++m) {
      __m512i v = _mm512_maskz_loadu_epi16(mask, x + m * k + i);
      even[m] = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
      odd[m] = _mm512_castsi512_ps(_mm512_and_si512(v, high));
    }
    for (int r = 0; r < R; ++r) {
      __m512i v = _mm512_maskz_loadu_epi16(mask, w + r * k + i);
      __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
      __m512 top = _mm512_castsi512_ps(_mm512_and_si512(v, high));
      for (int m = 0; m < M; ++m) {
        acc[m][r] = _mm512_fmadd_ps(low, even[m], acc[m][r]);
        acc[m][r] = _mm512_fmadd_ps(top, odd[m], acc[m][r]);
      }
    }
  }
  store512<M, R>(acc, out);
}

template <int M, int R>
AVX512BF16 void tile_avx512bf16(const uint16_t* w, const uint16_t* x, int64_t k, float* out) {
  __m512 acc[M][R];
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) acc[m][r] = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 32 <= k; i += 32) {
    __m512i v[M];
    for (int m = 0; m < M; ++m) v[m] = _mm512_loadu_si512(x + m * k + i);
    for (int r = 0; r < R; ++r) {
      __m512i u = _mm512_loadu_si512(w + r * k + i);
      for (int m = 0; m < M; ++m)
        acc[m][r] = _mm512_dpbf16_ps(acc[m][r], (__m512bh)u, (__m512bh)v[m]);
    }
  }
  if (i < k) {
    __mmask32 mask = (1u << (k - i)) - 1u;
    __m512i v[M];
    for (int m = 0; m < M; ++m) v[m] = _mm512_maskz_loadu_epi16(mask, x + m * k + i);
    for (int r = 0; r < R; ++r) {
      __m512i u = _mm512_maskz_loadu_epi16(mask, w + r * k + i);
      for (int m = 0; m < M; ++m)
        acc[m][r] = _mm512_dpbf16_ps(acc[m][r], (__m512bh)u, (__m512bh)v[m]);
    }
  }
  store512<M, R>(acc, out);
}

#endif

// Tiles of one instruction set: [rows of x][0: one row of w, 1: four, 2: eight].
using Tiles = Tile[kMaxRows + 1][3];

#define TILES(name)                                \
  {{nullptr, nullptr, nullptr},                    \
   {name<1, 1>, name<1, 4>, name<1, 8>},           \
   {name<2, 1>, name<2, 4>, nullptr},              \
   {name<3, 1>, name<3, 4>, nullptr},              \
   {name<4, 1>, name<4, 4>, nullptr}}

const Tiles kScalar = TILES(tile_scalar);
#if defined(__x86_64__)
const Tiles kAvx2 = TILES(tile_avx2);
const Tiles kAvx512 = TILES(tile_avx512);
const Tiles kAvx512Bf16 = TILES(tile_avx512bf16);
#endif

const Tiles& tiles_of(int64_t isa) {
#if defined(__x86_64__)
  if (isa == 3) return kAvx512Bf16;
  if (isa == 2) return kAvx512;
  if (isa == 1) return kAvx2;
#endif
  return kScalar;
}

// Rows [begin, end) of w against all rows of x.
void span(const Dense& d, const Tiles& tiles, const uint16_t* x, const uint16_t* residual,
          uint16_t* y, int64_t rows, int64_t begin, int64_t end) {
  const int block = rows == 1 ? 8 : 4;
  float sums[kMaxRows * kMaxBlock];
  for (int64_t n = begin; n < end;) {
    const int step = end - n >= block ? block : 1;
    for (int64_t m = 0; m < rows;) {
      const int tile = static_cast<int>(rows - m < kMaxRows ? rows - m : kMaxRows);
      tiles[tile][step / 4](d.w + n * d.k, x + m * d.k, d.k, sums);
      for (int i = 0; i < tile; ++i)
        for (int r = 0; r < step; ++r) {
          const int64_t at = (m + i) * d.n + n + r;
          float sum = sums[i * kMaxBlock + r];
          if (d.bias) sum += widen(d.bias[n + r]);
          if (residual) sum += widen(residual[at]);
          y[at] = narrow(sum);
        }
      m += tile;
    }
    n += step;
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

// x [rows, k], residual (or null) and y [rows, n], all contiguous; y may be residual.
extern "C" void gemv_bf16(const Dense* dense, const uint16_t* x, const uint16_t* residual,
                          uint16_t* y, int64_t rows, int64_t threads) {
  const Dense d = *dense;
  const Tiles& tiles = tiles_of(d.isa);
  // Waking a second thread costs about as much as reading 32 KB.
  if (threads <= 1 || d.n * d.k < (1 << 15)) {
    span(d, tiles, x, residual, y, rows, 0, d.n);
    return;
  }
  // Every thread gets whole blocks of eight rows, so that only the last one has a remainder.
  const int64_t blocks = (d.n + 7) / 8;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t t = 0; t < threads; ++t) {
    const int64_t begin = blocks * t / threads * 8;
    const int64_t end = t + 1 == threads ? d.n : blocks * (t + 1) / threads * 8;
    span(d, tiles, x, residual, y, rows, begin, end);
  }
}
