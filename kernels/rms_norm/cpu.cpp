// RMS norm with the residual addition before it: x += delta; out = x / sqrt(mean(x^2) + eps) * w.
// Zhang and Sennrich 2019.
#include "../simd.h"

#include <cmath>

struct Call {
  void* x;            // [rows, size], updated in place when delta is given
  const void* delta;  // [rows, size] or null
  const void* weight; // [size]
  void* out;          // [rows, size]
  int64_t rows, size;
  int64_t kind;  // Kind
  double eps;
};

template <class T>
INLINE void row(const Call& call, int64_t r) {
  T* x = (T*)call.x + r * call.size;
  T* out = (T*)call.out + r * call.size;
  const T* weight = (const T*)call.weight;
  const int64_t size = call.size;
  float total = 0;
  if (call.delta) {
    const T* delta = (const T*)call.delta + r * size;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < size; i++) {
      T sum;
      store(sum, load(x[i]) + load(delta[i]));
      x[i] = sum;
      total += load(sum) * load(sum);
    }
  } else {
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < size; i++) total += load(x[i]) * load(x[i]);
  }
  const float scale = 1.0f / std::sqrt(total / (float)size + (float)call.eps);
#pragma omp simd
  for (int64_t i = 0; i < size; i++) store(out[i], load(x[i]) * scale * load(weight[i]));
}

using Row = void (*)(const Call&, int64_t);
FOR_AVX512 static void row_bf16_avx512(const Call& c, int64_t r) { row<bf16>(c, r); }
FOR_AVX512 static void row_fp32_avx512(const Call& c, int64_t r) { row<float>(c, r); }
FOR_AVX2 static void row_bf16_avx2(const Call& c, int64_t r) { row<bf16>(c, r); }
FOR_AVX2 static void row_fp32_avx2(const Call& c, int64_t r) { row<float>(c, r); }
FOR_AVX512 static void row_fp16_avx512(const Call& c, int64_t r) { row<fp16>(c, r); }
FOR_AVX2 static void row_fp16_avx2(const Call& c, int64_t r) { row<fp16>(c, r); }
static void row_fp16_any(const Call& c, int64_t r) { row<fp16>(c, r); }
static void row_bf16_any(const Call& c, int64_t r) { row<bf16>(c, r); }
static void row_fp32_any(const Call& c, int64_t r) { row<float>(c, r); }

// By Kind.
struct Rows {
  Row of[3];
};

static Rows choose() {
  if (HAS_AVX512) return {{row_fp32_avx512, row_bf16_avx512, row_fp16_avx512}};
  if (HAS_AVX2) return {{row_fp32_avx2, row_bf16_avx2, row_fp16_avx2}};
  return {{row_fp32_any, row_bf16_any, row_fp16_any}};
}

// Share `share` of `shares` is every shares-th row.
extern "C" void trimtab_rms_norm(const Call* call, int64_t share, int64_t shares) {
  static const Rows rows = choose();
  const Row one = rows.of[call->kind];
  for (int64_t r = share; r < call->rows; r += shares) one(*call, r);
}
