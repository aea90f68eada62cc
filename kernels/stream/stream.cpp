// Reads, copies and adds long arrays to see how many bytes a second memory or a cache gives, and
// does nothing, to see what a call and a parallel region cost. No model runs these.
//
// Every thread works on its own part of the arrays, again and again: arrays that fit into a cache
// show the cache, longer ones show memory. As in STREAM (McCalpin 1995), bytes are what the program
// asks for; a line that a store fetches first is not counted.
#include "../simd.h"

namespace {

enum Kind { kRead = 0, kCopy = 1, kTriad = 2 };

// How far ahead memory is fetched, in words: 8 KB, as linear_dense does. A part that fits into a
// core's own cache needs none.
constexpr int64_t kAhead = 1024;
constexpr int64_t kOwnCache = 1 << 16;

INLINE uint64_t read_part(const uint64_t* a, int64_t n) {
  uint64_t sums[32] = {};
  int64_t i = 0;
  if (n > kOwnCache)
    for (; i + 32 <= n; i += 32) {
      for (int j = 0; j < 32; j += 8) __builtin_prefetch(a + i + kAhead + j);
      for (int j = 0; j < 32; j++) sums[j] += a[i + j];
    }
  for (; i + 32 <= n; i += 32)
    for (int j = 0; j < 32; j++) sums[j] += a[i + j];
  uint64_t total = 0;
  for (int j = 0; j < 32; j++) total += sums[j];
  for (; i < n; i++) total += a[i];
  return total;
}

INLINE void copy_part(uint64_t* c, const uint64_t* a, int64_t n) {
  for (int64_t i = 0; i < n; i++) c[i] = a[i];
}

// In fp32 numbers: two for each of `n`.
INLINE void triad_part(float* c, const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < 2 * n; i++) c[i] = a[i] + 3.0f * b[i];
}

INLINE uint64_t part(int kind, const uint64_t* a, const uint64_t* b, uint64_t* c, int64_t n) {
  if (kind == kRead) return read_part(a, n);
  if (kind == kCopy) copy_part(c, a, n);
  if (kind == kTriad)
    triad_part(reinterpret_cast<float*>(c), reinterpret_cast<const float*>(a),
               reinterpret_cast<const float*>(b), n);
  return 0;
}

FOR_AVX512 uint64_t part_avx512(int kind, const uint64_t* a, const uint64_t* b, uint64_t* c,
                                int64_t n) {
  return part(kind, a, b, c, n);
}
FOR_AVX2 uint64_t part_avx2(int kind, const uint64_t* a, const uint64_t* b, uint64_t* c,
                            int64_t n) {
  return part(kind, a, b, c, n);
}
uint64_t part_plain(int kind, const uint64_t* a, const uint64_t* b, uint64_t* c, int64_t n) {
  return part(kind, a, b, c, n);
}

using Part = uint64_t (*)(int, const uint64_t*, const uint64_t*, uint64_t*, int64_t);

Part best() {
  if (HAS_AVX512) return part_avx512;
  if (HAS_AVX2) return part_avx2;
  return part_plain;
}

}  // namespace

// `rounds` times over arrays of n 8-byte words, cut into one part a thread. The returned sum is of
// no use but to the compiler, which may not drop what makes it.
extern "C" uint64_t trimtab_stream(int64_t kind, const uint64_t* a, const uint64_t* b, uint64_t* c,
                                   int64_t n, int64_t rounds, int64_t threads) {
  const Part run = best();
  uint64_t total = 0;
  const int64_t each = (n + threads - 1) / threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) reduction(+ : total) schedule(static, 1)
#endif
  for (int64_t t = 0; t < threads; t++) {
    const int64_t from = t * each, count = from + each < n ? each : n - from;
    if (count <= 0) continue;
    for (int64_t r = 0; r < rounds; r++) {
      total += run(static_cast<int>(kind), a + from, b + from, c + from, count);
      // Memory may have changed, for all the compiler knows: the next round is no repetition.
      asm volatile("" ::: "memory");
    }
  }
  return total;
}

// The threads that OpenMP gives: 1 where the pragmas are ignored.
extern "C" int64_t trimtab_stream_threads(int64_t threads) {
  int64_t seen = 0;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads) reduction(+ : seen)
#endif
  seen += 1;
  return seen;
}

// `rounds` parallel regions with nothing in them.
extern "C" void trimtab_regions(int64_t rounds, int64_t threads) {
  for (int64_t r = 0; r < rounds; r++) {
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
#endif
    asm volatile("" ::: "memory");
  }
}

extern "C" void trimtab_nothing(const void*, int64_t, int64_t) {}
