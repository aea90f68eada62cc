// Rows of x rounded to E4M3 with a scale each, kept as the bf16 numbers that the codes stand for:
// they are exact there, and so is every product of two of them in fp32. linear_lowbit's loops
// multiply them (its Call begins our record) and put the scales in at the end.
#include "../linear_lowbit/form.h"

namespace {

constexpr float kMost = 448.0f, kTiny = 1e-30f;  // codes.py
constexpr uint32_t kInfinity = 0x7f800000u;

struct Call {
  lowbit::Call product;   // of x [rows, k] and x_scale [rows], which are written here
  const uint16_t* given;  // [rows, k] bf16
};

// fp32 within +-448 to the nearest E4M3 number, halves to even. Below 2^-6 the steps are 2^-9:
// adding 1.5 * 2^14 and taking it away rounds to them.
INLINE float to_e4m3(float v) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, v);
  const uint32_t normal = (bits + 0x7ffffu + ((bits >> 20) & 1u)) & 0xfff00000u;
  const float small = (v + 24576.0f) - 24576.0f;
  return (bits & 0x7fffffffu) < 0x3c800000u ? small : __builtin_bit_cast(float, normal);
}

INLINE void row(const uint16_t* given, uint16_t* x, float* scale, int64_t k) {
  // Sizes of bf16 are ordered as their bits are; those from infinity's on are no numbers.
  uint32_t top = 0;
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < k; i++) {
    const uint32_t size = given[i] & 0x7fffu;
    top = size > top ? size : top;
  }
  const uint32_t most_bits = top << 16;
  const float most = __builtin_bit_cast(float, most_bits);
  const bool finite = most_bits < kInfinity;
  const float inverse = finite && most >= kTiny ? kMost / most : 0.0f;
#pragma omp simd
  for (int64_t i = 0; i < k; i++) {
    float v = load(bf16{given[i]}) * inverse;
    v = v > kMost ? kMost : v < -kMost ? -kMost : v;
    x[i] = (uint16_t)(__builtin_bit_cast(uint32_t, to_e4m3(v)) >> 16);
  }
  if (!finite)
    for (int64_t i = 0; i < k; i++) x[i] = 0;
  *scale = finite ? most / kMost : __builtin_nanf("");
}

using Row = void (*)(const uint16_t*, uint16_t*, float*, int64_t);
FOR_AVX512 void row_avx512(const uint16_t* g, uint16_t* x, float* s, int64_t k) { row(g, x, s, k); }
FOR_AVX2 void row_avx2(const uint16_t* g, uint16_t* x, float* s, int64_t k) { row(g, x, s, k); }
void row_any(const uint16_t* g, uint16_t* x, float* s, int64_t k) { row(g, x, s, k); }

Row choose() { return HAS_AVX512 ? row_avx512 : HAS_AVX2 ? row_avx2 : row_any; }

}  // namespace

// Share `share` of `shares` is every shares-th row.
extern "C" void fp8_round(const Call* call, int64_t share, int64_t shares) {
  static const Row one = choose();
  const int64_t k = call->product.form->k;
  for (int64_t m = share; m < call->product.rows; m += shares)
    one(call->given + m * k, const_cast<uint16_t*>(call->product.x) + m * k,
        const_cast<float*>(call->product.x_scale) + m, k);
}

extern "C" void fp8_round_all(const Call* call, int64_t threads) {
  const int64_t rows = call->product.rows;
  if (threads > rows) threads = rows;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
  for (int64_t t = 0; t < threads; ++t) fp8_round(call, t, threads);
}
