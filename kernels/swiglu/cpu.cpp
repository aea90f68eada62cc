// SwiGLU: out = silu(gate) * up, with gate and up side by side in one row (Shazeer 2020).
#include "../simd.h"

struct Call {
  const void* gate_up; // [rows, 2 * size]: gate, then up
  void* out;           // [rows, size]
  int64_t rows, size;
  int64_t kind;  // Kind
};

template <class T>
INLINE void span(const Call& call, int64_t r, int64_t from, int64_t to) {
  const T* gate = (const T*)call.gate_up + r * 2 * call.size;
  const T* up = gate + call.size;
  T* out = (T*)call.out + r * call.size;
#pragma omp simd
  for (int64_t i = from; i < to; i++) {
    float g = load(gate[i]);
    store(out[i], g / (1.0f + fast_exp(-g)) * load(up[i]));
  }
}

using Span = void (*)(const Call&, int64_t, int64_t, int64_t);
#define SPAN(name, type, target) \
  target static void name(const Call& c, int64_t r, int64_t a, int64_t b) { span<type>(c, r, a, b); }
SPAN(bf16_avx512, bf16, FOR_AVX512)
SPAN(fp32_avx512, float, FOR_AVX512)
SPAN(bf16_avx2, bf16, FOR_AVX2)
SPAN(fp32_avx2, float, FOR_AVX2)
SPAN(fp16_avx512, fp16, FOR_AVX512)
SPAN(fp16_avx2, fp16, FOR_AVX2)
SPAN(fp16_any, fp16, )
SPAN(bf16_any, bf16, )
SPAN(fp32_any, float, )

// By Kind.
struct Spans {
  Span of[3];
};

static Spans choose() {
  if (HAS_AVX512) return {{fp32_avx512, bf16_avx512, fp16_avx512}};
  if (HAS_AVX2) return {{fp32_avx2, bf16_avx2, fp16_avx2}};
  return {{fp32_any, bf16_any, fp16_any}};
}

// Share `share` of `shares` is some columns of every row.
extern "C" void trimtab_swiglu(const Call* call, int64_t share, int64_t shares) {
  static const Spans spans = choose();
  const Span one = spans.of[call->kind];
  // Whole cache lines of 64 bytes, so that no two threads write the same one.
  const int64_t lines = (call->size + 31) / 32;
  const int64_t from = lines * share / shares * 32;
  int64_t to = lines * (share + 1) / shares * 32;
  to = to < call->size ? to : call->size;
  for (int64_t r = 0; r < call->rows && from < to; r++) one(*call, r, from, to);
}
