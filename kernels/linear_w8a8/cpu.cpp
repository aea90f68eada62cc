// y[m, n] = residual[m, n] + bias[n] + s[m] t[n] sum_k q[m, k] w[n, k]: q and w int8, the sum int32
// and exact; q = round(x / s) is made here, s = max |x[m, :]| / 127 or one scale for all rows.
//
// w is stored as w + 128 in blocks of 16 rows, [n / 16][k / 4][16][4]: 64 bytes meet four columns
// of a row of x in one vpdpbusd. The 128 leaves with 128 * sum_k q[m, k]. The instruction set is
// chosen at run time (tiles.h is compiled for each).
#include "../simd.h"

#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

struct Weight {
  const uint8_t* codes;  // [ceil(n / 16), ceil(k / 4), 16, 4]
  const float* scale;    // [n]
  const void* bias;      // [n] like x, or null
  const int32_t* apart;  // the columns of x that are left out, ascending
  int64_t n, aparts;
  int64_t width;         // columns of x
  int64_t k;             // columns without those left out, as in codes
  int64_t is_bf16;       // x, bias, residual and y are bf16, else fp32
  int64_t isa;           // 0 scalar, 1 avx2, 2 avx_vnni, 3 avx512_vnni
  double x_scale;        // of all rows of x; 0: each row has its own
};

struct Call {
  const Weight* weight;
  const void* x;         // [rows, width]
  const void* residual;  // [rows, n] or null; may be y
  void* y;               // [rows, n]
  void* apart;           // [rows, aparts], what stood in the columns left out, or null
  int8_t* codes;         // scratch [rows, row_stride(k)]
  float* scales;         // scratch [rows]
  int32_t* sums;         // scratch [rows]
  int64_t rows;
};

namespace {

constexpr int64_t kQuadBytes = 64;  // four columns of a block of 16 rows
constexpr int kMostRows = 12;       // rows of x in one tile, at most
constexpr int kPair = 32;           // rows of w that are worked on together
constexpr int64_t kStreamed = 6;    // up to so many rows of x, w is read as one stream
[[maybe_unused]] constexpr int kAhead = 8192;  // bytes that are fetched ahead of a stream
// So few rows are quantized again in every share: that costs less than waiting for one another.
constexpr int64_t kAloneRows = 2;
// Below this a row is zero: 127 / max would be infinite.
constexpr float kTiny = 1e-30f;

int64_t quads_of(int64_t k) { return (k + 3) / 4; }

// One line more than needed, so that rows a power of two apart do not meet in one set of the cache.
int64_t row_stride(int64_t k) { return (k + 63) / 64 * 64 + 64; }

struct Row {
  int8_t* codes;
  float* scale;
  int32_t* sum;
};

// What is the same for all outputs of one row of x.
struct Finish {
  const Weight* weight;
  const void* residual;
  void* y;
  float scale;
  int32_t sum;
};

// The bits of the largest |x| as a float; a NaN is larger than all.
INLINE uint32_t largest(const bf16* x, int64_t k) {
  uint16_t most = 0;
  for (int64_t i = 0; i < k; ++i) {
    const uint16_t bits = x[i].bits & 0x7fff;
    most = bits > most ? bits : most;
  }
  return static_cast<uint32_t>(most) << 16;
}

INLINE uint32_t largest(const float* x, int64_t k) {
  uint32_t most = 0;
  for (int64_t i = 0; i < k; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffff;
    most = bits > most ? bits : most;
  }
  return most;
}

// A row of x without the columns left out, which go to `apart` unless that is null.
template <class T>
const T* taken_apart(const Weight& w, const T* x, T* apart) {
  static thread_local std::vector<T> memory;
  if (static_cast<int64_t>(memory.size()) < w.k) memory.resize(w.k);
  T* to = memory.data();
  int64_t from = 0;
  for (int64_t i = 0; i <= w.aparts; ++i) {
    const int64_t column = i < w.aparts ? w.apart[i] : w.width;
    std::memcpy(to, x + from, (column - from) * sizeof(T));
    to += column - from;
    from = column + 1;
    if (apart && i < w.aparts) apart[i] = x[column];
  }
  return memory.data();
}

// One row of x in int8. NaN and infinity make its scale NaN, so that the row's outputs are NaN.
template <class T>
INLINE void quantize(const Weight& w, const void* from, void* apart, Row row) {
  const T* x = static_cast<const T*>(from);
  if (w.aparts) x = taken_apart(w, x, static_cast<T*>(apart));
  // Bytes may alias anything: loops need their bounds and pointers in variables of their own.
  int8_t* __restrict codes = row.codes;
  const int64_t k = w.k;
  const uint32_t bits = largest(x, k);
  const float most = __builtin_bit_cast(float, bits);
  const float fixed = static_cast<float>(w.x_scale);
  const bool finite = bits < 0x7f800000u;
  const float inverse = !finite ? 0 : fixed > 0 ? 1.0f / fixed : most >= kTiny ? 127.0f / most : 0;
  *row.scale = finite ? (fixed > 0 ? fixed : most / 127.0f) : __builtin_nanf("");
  for (int64_t i = 0; i < k; ++i) {
    float v = load(x[i]) * inverse;
    v = v > 127.0f ? 127.0f : v;
    v = v < -127.0f ? -127.0f : v;
    // Adding 1.5 * 2^23 rounds to nearest even; the low byte is the integer.
    codes[i] = static_cast<int8_t>(__builtin_bit_cast(uint32_t, v + 12582912.0f));
  }
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += codes[i];
  *row.sum = sum;
  for (int64_t i = k; i < 4 * quads_of(k); ++i) codes[i] = 0;
}

template <class T>
INLINE void finish(const Finish& f, const int32_t* sums, int64_t n, int64_t at, int count) {
  const T* bias = static_cast<const T*>(f.weight->bias);
  const T* residual = static_cast<const T*>(f.residual);
  T* y = static_cast<T*>(f.y) + at;
  const float* scale = f.weight->scale + n;
  const float x_scale = f.scale;
  const uint32_t offset = 128u * static_cast<uint32_t>(f.sum);
  float total[16];
  for (int i = 0; i < count; ++i)
    total[i] = static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(sums[i]) - offset)) *
               (x_scale * scale[i]);
  if (bias)
    for (int i = 0; i < count; ++i) total[i] += load(bias[n + i]);
  if (residual)
    for (int i = 0; i < count; ++i) total[i] += load(residual[at + i]);
  for (int i = 0; i < count; ++i) store(y[i], total[i]);
}

// A whole block apart, so that the compiler sees a constant count and vectorizes.
template <class T>
INLINE void finish_block(const Finish& f, const int32_t* sums, int64_t n, int64_t at, int count) {
  if (count == 16)
    finish<T>(f, sums, n, at, 16);
  else
    finish<T>(f, sums, n, at, count);
}

#include "vectors.h"
#include "dispatch.h"

}  // namespace

extern "C" int64_t w8a8_best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!HAS_AVX2) return 0;
  if (HAS_AVX512 && __builtin_cpu_supports("avx512vnni")) return 3;
  // CPUID 7.1: EAX bit 4. The compilers' names for it differ.
  uint32_t a = 7, b = 0, c = 1, d = 0;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return (a >> 4) & 1 ? 2 : 1;
#else
  return 0;
#endif
}

extern "C" int64_t w8a8_row_stride(int64_t k) { return row_stride(k); }

// First part: every row of x in int8. Share `share` of `shares` is every shares-th row.
extern "C" void w8a8_quantize(const Call* call, int64_t share, int64_t shares) {
  const Weight& w = *call->weight;
  const auto quantize = functions_of(w.isa).quantize[w.is_bf16 != 0];
  const int64_t size = w.is_bf16 ? 2 : 4, stride = row_stride(w.k);
  for (int64_t m = share; m < call->rows; m += shares) {
    char* apart = static_cast<char*>(call->apart);
    quantize(w, static_cast<const char*>(call->x) + m * w.width * size,
             apart ? apart + m * w.aparts * size : nullptr,
             {call->codes + m * stride, call->scales + m, call->sums + m});
  }
}

// Second part: a share is a range of rows of w. They meet every row of x while in the cache.
extern "C" void w8a8_product(const Call* call, int64_t share, int64_t shares) {
  const Weight& w = *call->weight;
  const Functions& functions = functions_of(w.isa);
  const auto finish = functions.finish[w.is_bf16 != 0];
  const int64_t quads = quads_of(w.k), stride = row_stride(w.k);
  const int64_t pairs = (w.n + kPair - 1) / kPair;
  const int64_t end = pairs * (share + 1) / shares * kPair;
  const int64_t tiles = (call->rows + functions.widest - 1) / functions.widest;
  int32_t sums[kMostRows * kPair];
  const int wide = call->rows > kStreamed ? 2 : 1;
  for (int64_t n = pairs * share / shares * kPair; n < end && n < w.n; n += 16 * wide) {
    const int blocks = w.n - n > 16 ? wide : 1;
    const uint8_t* codes = w.codes + n / 16 * quads * kQuadBytes;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = call->rows * t / tiles, to = call->rows * (t + 1) / tiles;
      functions.of[blocks - 1][to - from](codes, call->codes + from * stride, stride, quads, sums);
      for (int64_t m = from; m < to; ++m) {
        const Finish row = {&w, call->residual, call->y, call->scales[m], call->sums[m]};
        for (int b = 0; b < blocks; ++b) {
          const int64_t first = n + 16 * b, left = w.n - first;
          finish(row, sums + ((m - from) * blocks + b) * 16, first, m * w.n + first,
                 static_cast<int>(left < 16 ? left : 16));
        }
      }
    }
  }
}

// Both parts of a few rows, without waiting for other shares.
extern "C" void w8a8_alone(const Call* call, int64_t share, int64_t shares) {
  static thread_local std::vector<int8_t> codes;
  const size_t size = call->rows * row_stride(call->weight->k);
  if (codes.size() < size) codes.resize(size);
  float scales[kAloneRows];
  int32_t sums[kAloneRows];
  Call own = *call;
  own.codes = codes.data();
  own.scales = scales;
  own.sums = sums;
  w8a8_quantize(&own, 0, 1);
  w8a8_product(&own, share, shares);
}

extern "C" int64_t w8a8_alone_rows() { return kAloneRows; }

// A call on its own; the record has no scratch when its rows are w8a8_alone_rows or fewer.
extern "C" void w8a8_run(const Call* call, int64_t threads) {
  const bool alone = call->codes == nullptr;
  // Waking a second thread costs about as much as reading 32 KB.
  if (threads <= 1 || call->rows * call->weight->n * call->weight->k < (1 << 15)) {
    if (alone) return w8a8_alone(call, 0, 1);
    w8a8_quantize(call, 0, 1);
    w8a8_product(call, 0, 1);
    return;
  }
  // More shares than threads: a thread whose core was taken away holds up one share only.
  const int64_t shares = 4 * threads;
#pragma omp parallel num_threads(threads)
  {
    if (!alone) {
#pragma omp for schedule(dynamic)
      for (int64_t s = 0; s < shares; ++s) w8a8_quantize(call, s, shares);
    }
#pragma omp for schedule(dynamic)
    for (int64_t s = 0; s < shares; ++s)
      alone ? w8a8_alone(call, s, shares) : w8a8_product(call, s, shares);
  }
}
