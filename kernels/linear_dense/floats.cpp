// y[m, n] = residual[m, n] + bias[n] + sum_k x[m, k] * w[n, k], all fp32 or all fp16, fp32 inside.
//
// For few rows of x (decoding), where the time is that of reading w once: four rows of w meet every
// row of x while they are in the first-level cache. fp16 is widened there, x once per share.
#include "../simd.h"

#include <vector>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace {

constexpr int kRows = 4;   // rows of w at a time
constexpr int kLanes = 8;  // floats in a vector
using Floats = float __attribute__((vector_size(4 * kLanes)));

struct Dense {
  const void* w;     // [n, k]
  const void* bias;  // [n] or null
  int64_t n, k;
  int64_t kind;  // kFloat or kHalf
  int64_t isa;   // 0 plain, 1 avx2 (and F16C)
};

// `size` floats of the calling thread, which begin a cache line.
float* scratch(int64_t size) {
  static thread_local std::vector<float> memory;
  if ((int64_t)memory.size() < size + 16) memory.resize(size + 1024);
  return (float*)(((uintptr_t)memory.data() + 63) & ~(uintptr_t)63);
}

using Widen = void (*)(const fp16* from, float* to, int64_t count);

void widen_any(const fp16* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = load(from[i]);
}

// out[m * kRows + r] = x[m] . w[r] for M rows of x and R of w, each `k` floats, rows k apart.
template <int M, int R>
INLINE void dots(const float* w, const float* x, int64_t k, float* out) {
  Floats sum[M][R] = {};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    Floats a[M], b;
    for (int m = 0; m < M; m++) memcpy(&a[m], x + m * k + i, sizeof(b));
    for (int r = 0; r < R; r++) {
      memcpy(&b, w + r * k + i, sizeof(b));
      for (int m = 0; m < M; m++) sum[m][r] += a[m] * b;
    }
  }
  for (int m = 0; m < M; m++)
    for (int r = 0; r < R; r++) {
      float total = 0;
      for (int lane = 0; lane < kLanes; lane++) total += sum[m][r][lane];
      for (int64_t j = i; j < k; j++) total += x[m * k + j] * w[r * k + j];
      out[m * kRows + r] = total;
    }
}

template <int R>
INLINE void all_dots(const float* w, const float* x, int64_t k, int64_t rows, float* out) {
  int64_t m = 0;
  for (; m + 2 <= rows; m += 2) dots<2, R>(w, x + m * k, k, out + m * kRows);
  if (m < rows) dots<1, R>(w, x + m * k, k, out + m * kRows);
}

template <class T>
INLINE void finish(const Dense& d, const float* sums, const T* residual, T* y, int64_t rows,
                   int64_t n, int count) {
  for (int64_t m = 0; m < rows; m++)
    for (int r = 0; r < count; r++) {
      float total = sums[m * kRows + r];
      if (d.bias) total += load(((const T*)d.bias)[n + r]);
      if (residual) total += load(residual[m * d.n + n + r]);
      store(y[m * d.n + n + r], total);
    }
}

// Rows [begin, end) of w. `wide` is memory for x, four rows of w and the sums.
template <class T>
INLINE void span(const Dense& d, const T* x, const T* residual, T* y, int64_t rows, int64_t begin,
                 int64_t end, Widen widen, float* wide) {
  const int64_t k = d.k;
  float* sums = wide;
  const float* x_wide = (const float*)x;
  float* w_wide = sums + rows * kRows;
  if (sizeof(T) == 2) {
    widen((const fp16*)x, w_wide, rows * k);
    x_wide = w_wide;
    w_wide += rows * k;
  }
  for (int64_t n = begin; n < end; n += kRows) {
    const int count = (int)(end - n < kRows ? end - n : kRows);
    const float* w = (const float*)d.w + n * k;
    if (sizeof(T) == 2) {
      widen((const fp16*)d.w + n * k, w_wide, count * k);
      w = w_wide;
    }
    if (count == kRows)
      all_dots<kRows>(w, x_wide, k, rows, sums);
    else
      for (int r = 0; r < count; r++) all_dots<1>(w + r * k, x_wide, k, rows, sums + r);
    finish<T>(d, sums, residual, y, rows, n, count);
  }
}

using Span = void (*)(const Dense&, const void*, const void*, void*, int64_t, int64_t, int64_t,
                      float*);
#define SPAN(name, type, target, widen)                                                        \
  target void name(const Dense& d, const void* x, const void* s, void* y, int64_t rows,        \
                   int64_t a, int64_t b, float* wide) {                                        \
    span<type>(d, (const type*)x, (const type*)s, (type*)y, rows, a, b, widen, wide);          \
  }
SPAN(fp32_any, float, , widen_any)
SPAN(fp16_any, fp16, , widen_any)

#if defined(__x86_64__)
__attribute__((target("avx2,fma,f16c"))) void widen_f16c(const fp16* from, float* to,
                                                         int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + i))));
  for (; i < count; i++) to[i] = load(from[i]);
}

SPAN(fp32_avx2, float, FOR_AVX2, widen_f16c)
SPAN(fp16_avx2, fp16, FOR_AVX2, widen_f16c)

bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1u);
}
#else
bool has_f16c() { return false; }
#endif

Span span_of(const Dense& d) {
#if defined(__x86_64__)
  if (d.isa == 1) return d.kind == kHalf ? fp16_avx2 : fp32_avx2;
#endif
  return d.kind == kHalf ? fp16_any : fp32_any;
}

}  // namespace

// The best instruction set of this processor, for Dense::isa.
extern "C" int64_t floats_best_isa() { return HAS_AVX2 && has_f16c(); }

// One call with its arguments, for kernels/program.cpp.
struct Bound {
  const Dense* dense;
  const void* x;         // [rows, k]
  const void* residual;  // [rows, n] or null
  void* y;               // [rows, n]; may be residual
  int64_t rows;
};

// Every share gets whole blocks, so that only the last one has a remainder.
extern "C" void floats_part(const Bound* call, int64_t share, int64_t shares) {
  const Dense& d = *call->dense;
  const int64_t blocks = (d.n + kRows - 1) / kRows;
  const int64_t begin = blocks * share / shares * kRows;
  const int64_t end = share + 1 == shares ? d.n : blocks * (share + 1) / shares * kRows;
  if (begin >= end) return;
  const int64_t wide = d.kind == kHalf ? (call->rows + kRows) * d.k : 0;
  span_of(d)(d, call->x, call->residual, call->y, call->rows, begin, end,
             scratch(call->rows * kRows + wide));
}

extern "C" void floats_product(const Bound* call, int64_t threads) {
  // Waking a second thread costs about as much as reading 32 KB.
  if (threads <= 1 || call->dense->n * call->dense->k < (1 << 14)) {
    floats_part(call, 0, 1);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t t = 0; t < threads; ++t) floats_part(call, t, threads);
}
