// What tiles.h needs of each instruction set, in a namespace of its own; included by cpu.cpp once.

namespace scalar {
#define TARGET
struct Sum {
  int32_t of[16];
};
using Codes = const uint8_t*;
using Spread = const int8_t*;
inline Sum zero() { return {}; }
inline Codes load(const uint8_t* p) { return p; }
inline Spread spread(const int8_t* p) { return p; }
inline Sum dot(Sum sum, Codes w, Spread x) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) sum.of[i] += w[4 * i + j] * x[j];
  return sum;
}
inline Sum add(Sum a, Sum b) {
  for (int i = 0; i < 16; ++i) a.of[i] += b.of[i];
  return a;
}
inline void keep(Sum sum, int32_t* out) { std::memcpy(out, sum.of, sizeof sum.of); }
#include "tiles.h"
#undef TARGET
}  // namespace scalar

#if defined(__x86_64__)

INLINE int32_t four(const int8_t* p) {
  int32_t bytes;
  std::memcpy(&bytes, p, 4);
  return bytes;
}

// vpmaddubsw would saturate; widened to 16 bit, vpmaddwd is exact. A lane sums two columns.
namespace avx2 {
#define TARGET __attribute__((target("avx2,fma")))
struct Sum {
  __m256i of[4];
};
struct Codes {
  __m256i of[4];
};
using Spread = __m256i;
TARGET inline Sum zero() {
  const __m256i none = _mm256_setzero_si256();
  return {{none, none, none, none}};
}
TARGET inline Codes load(const uint8_t* p) {
  Codes codes;
  for (int i = 0; i < 4; ++i)
    codes.of[i] =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i)));
  return codes;
}
TARGET inline Spread spread(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_set1_epi32(four(p)));
}
TARGET inline Sum dot(Sum sum, Codes w, Spread x) {
  for (int i = 0; i < 4; ++i)
    sum.of[i] = _mm256_add_epi32(sum.of[i], _mm256_madd_epi16(w.of[i], x));
  return sum;
}
TARGET inline Sum add(Sum a, Sum b) {
  for (int i = 0; i < 4; ++i) a.of[i] = _mm256_add_epi32(a.of[i], b.of[i]);
  return a;
}
TARGET inline void keep(Sum sum, int32_t* out) {
  for (int i = 0; i < 4; i += 2) {
    const __m256i pairs = _mm256_hadd_epi32(sum.of[i], sum.of[i + 1]);
    const __m256i ordered = _mm256_permute4x64_epi64(pairs, 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4 * i), ordered);
  }
}
#include "tiles.h"
#undef TARGET
}  // namespace avx2

namespace avx_vnni {
#define TARGET __attribute__((target("avxvnni,avx2,fma")))
struct Sum {
  __m256i low, high;
};
using Codes = Sum;
using Spread = __m256i;
TARGET inline Sum zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
TARGET inline Codes load(const uint8_t* p) {
  const __m256i* at = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
TARGET inline Spread spread(const int8_t* p) { return _mm256_set1_epi32(four(p)); }
TARGET inline Sum dot(Sum sum, Codes w, Spread x) {
  return {_mm256_dpbusd_avx_epi32(sum.low, w.low, x), _mm256_dpbusd_avx_epi32(sum.high, w.high, x)};
}
TARGET inline Sum add(Sum a, Sum b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
TARGET inline void keep(Sum sum, int32_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), sum.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), sum.high);
}
#include "tiles.h"
#undef TARGET
}  // namespace avx_vnni

namespace avx512_vnni {
#define TARGET                                                                             \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,prefer-vector-" \
                        "width=512")))
using Sum = __m512i;
using Codes = __m512i;
using Spread = __m512i;
TARGET inline Sum zero() { return _mm512_setzero_si512(); }
TARGET inline Codes load(const uint8_t* p) { return _mm512_loadu_si512(p); }
TARGET inline Spread spread(const int8_t* p) { return _mm512_set1_epi32(four(p)); }
TARGET inline Sum dot(Sum sum, Codes w, Spread x) { return _mm512_dpbusd_epi32(sum, w, x); }
TARGET inline Sum add(Sum a, Sum b) { return _mm512_add_epi32(a, b); }
TARGET inline void keep(Sum sum, int32_t* out) { _mm512_storeu_si512(out, sum); }
#include "tiles.h"
#undef TARGET
}  // namespace avx512_vnni

#endif
