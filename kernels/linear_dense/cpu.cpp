// y[m, n] = residual[m, n] + bias[n] + sum_k x[m, k] * w[n, k], bf16 in and out, fp32 inside.
//
// For few rows of x (decoding), where the time is that of reading w once. A block of eight rows of
// w meets every tile of x before the next block is read. The instruction set is chosen at run
// time (tiles.h is compiled for each); OpenMP splits the rows of w over threads.

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int kTile = 8;   // rows of x in one tile, at most
constexpr int kBlock = 8;  // rows of w in one block
constexpr int kRows = 16;  // rows of x that meet a block while it is in the cache
// How far ahead of a stream memory is fetched, in bf16 numbers: 8 KB was best of 1 to 128 KB.
[[maybe_unused]] constexpr int kAhead = 4096;

struct Dense {
  const uint16_t* w;     // [n, k], rows k apart
  const uint16_t* bias;  // [n] or null
  int64_t n, k;
  int64_t isa;  // 0 scalar, 1 avx2, 2 avx512, 3 avx512_bf16
};

// out[m * kBlock + r] = sum_k x[m, k] * w[r, k] for r < count.
using Tile = void (*)(const uint16_t* w, const uint16_t* x, int64_t k, int count, float* out);

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

template <int M>
void tile_scalar(const uint16_t* w, const uint16_t* x, int64_t k, int count, float* out) {
  for (int r = 0; r < count; ++r) {
    float sum[M] = {};
    for (int64_t i = 0; i < k; ++i)
      for (int m = 0; m < M; ++m) sum[m] += widen(x[m * k + i]) * widen(w[r * k + i]);
    for (int m = 0; m < M; ++m) out[m * kBlock + r] = sum[m];
  }
}

#if defined(__x86_64__)

namespace avx2 {
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 16
using Sum = __m256;
struct Wide {
  __m256 even, odd;
};
TARGET inline Wide load(const uint16_t* p) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(v, 16)),
          _mm256_castsi256_ps(_mm256_and_si256(v, high))};
}
TARGET inline Wide load_some(const uint16_t* p, int64_t count) {
  uint16_t copy[LANES] = {};
  std::memcpy(copy, p, 2 * (count < LANES ? count : LANES));
  return load(copy);
}
TARGET inline Sum zero() { return _mm256_setzero_ps(); }
TARGET inline Sum add(Sum a, Sum b) { return _mm256_add_ps(a, b); }
TARGET inline Sum dot(Sum sum, Wide a, Wide b) {
  return _mm256_fmadd_ps(a.odd, b.odd, _mm256_fmadd_ps(a.even, b.even, sum));
}
TARGET inline __m256 eight(Sum sum) { return sum; }
#include "tiles.h"
#undef TARGET
#undef LANES
}  // namespace avx2

namespace avx512 {
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx2,fma")))
#define LANES 32
using Sum = __m512;
struct Wide {
  __m512 even, odd;
};
TARGET inline __mmask32 first(int64_t count) {
  return count >= 32 ? 0xffffffffu : (1u << count) - 1u;
}
TARGET inline Wide widen(__m512i v) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(v, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(v, high))};
}
TARGET inline Wide load(const uint16_t* p) { return widen(_mm512_loadu_si512(p)); }
TARGET inline Wide load_some(const uint16_t* p, int64_t count) {
  return widen(_mm512_maskz_loadu_epi16(first(count), p));
}
TARGET inline Sum zero() { return _mm512_setzero_ps(); }
TARGET inline Sum add(Sum a, Sum b) { return _mm512_add_ps(a, b); }
TARGET inline Sum dot(Sum sum, Wide a, Wide b) {
  return _mm512_fmadd_ps(a.odd, b.odd, _mm512_fmadd_ps(a.even, b.even, sum));
}
TARGET inline __m256 eight(Sum sum) {
  const __m256d top = _mm512_extractf64x4_pd(_mm512_castps_pd(sum), 1);
  return _mm256_add_ps(_mm512_castps512_ps256(sum), _mm256_castpd_ps(top));
}
#include "tiles.h"
#undef TARGET
}  // namespace avx512

namespace avx512_bf16 {
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")))
using avx512::add;
using avx512::eight;
using avx512::first;
using avx512::zero;
using Sum = __m512;
using Wide = __m512i;
TARGET inline Wide load(const uint16_t* p) { return _mm512_loadu_si512(p); }
TARGET inline Wide load_some(const uint16_t* p, int64_t count) {
  return _mm512_maskz_loadu_epi16(first(count), p);
}
TARGET inline Sum dot(Sum sum, Wide a, Wide b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
#include "tiles.h"
#undef TARGET
#undef LANES
}  // namespace avx512_bf16

#endif

// The tiles of one instruction set by their rows of x, and how outputs are rounded.
struct Tiles {
  int widest;
  Tile of[kTile + 1];
  Finish finish;
};

// What the registers of an instruction set hold decides which loop, and its second number.
const Tiles kScalar = {
    4, {nullptr, tile_scalar<1>, tile_scalar<2>, tile_scalar<3>, tile_scalar<4>}, finish_scalar};
#if defined(__x86_64__)
const Tiles kAvx2 = {
    4,
    {nullptr, avx2::stream<1, 4>, avx2::tile<2, 4>, avx2::tile<3, 2>, avx2::tile<4, 2>},
    avx2::finish};
const Tiles kAvx512 = {
    4,
    {nullptr, avx512::stream<1, 4>, avx512::stream<2, 4>, avx512::tile<3, 4>, avx512::tile<4, 4>},
    avx512::finish};
const Tiles kAvx512Bf16 = {
    8,
    {nullptr, avx512_bf16::stream<1, 4>, avx512_bf16::stream<2, 4>, avx512_bf16::stream<3, 2>,
     avx512_bf16::stream<4, 2>, avx512_bf16::tile<5, 4>, avx512_bf16::tile<6, 4>,
     avx512_bf16::tile<7, 2>, avx512_bf16::tile<8, 2>},
    avx512_bf16::finish};
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
    for (int m = 0; m < rows;) {
      const int tile = rows - m < tiles.widest ? rows - m : tiles.widest;
      tiles.of[tile](d.w + n * d.k, x + m * d.k, d.k, count, sums + m * kBlock);
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
