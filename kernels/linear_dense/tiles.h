// The two loops of cpu.cpp, included once per instruction set inside a namespace of its own.
//
// The includer defines TARGET (the function attribute), LANES (bf16 numbers in a vector), Wide (a
// vector of them, ready to multiply), Sum (fp32 accumulator) and on them: load(p), load_some(p,
// count), zero(), dot(sum, a, b), add(a, b), eight(sum), the last giving eight fp32 lanes.

TARGET inline float lanes8(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// The lane sums of four vectors, as four lanes.
TARGET inline __m128 lanes8x4(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

// Rows of w one after the other, U accumulators along k: memory is read in one stream, which is
// what the processor's own prefetching likes best. For few rows of x.
template <int M, int U>
TARGET void stream(const uint16_t* w, const uint16_t* x, int64_t k, int count, float* out) {
  __m256 half[M][kBlock];
  for (int r = 0; r < count; ++r, w += k) {
    Sum sum[M][U];
    for (int m = 0; m < M; ++m)
      for (int u = 0; u < U; ++u) sum[m][u] = zero();
    int64_t i = 0;
    for (; i + LANES * U <= k; i += LANES * U)
      for (int u = 0; u < U; ++u) {
        const uint16_t* at = w + i + LANES * u;
        __builtin_prefetch(at + kAhead);
        const Wide v = load(at);
        for (int m = 0; m < M; ++m) sum[m][u] = dot(sum[m][u], v, load(x + m * k + i + LANES * u));
      }
    for (; i < k; i += LANES) {
      const Wide v = load_some(w + i, k - i);
      for (int m = 0; m < M; ++m) sum[m][0] = dot(sum[m][0], v, load_some(x + m * k + i, k - i));
    }
    for (int m = 0; m < M; ++m) {
      for (int u = 1; u < U; ++u) sum[m][0] = add(sum[m][0], sum[m][u]);
      half[m][r] = eight(sum[m][0]);
    }
  }
  for (int r = count; r < kBlock; ++r)
    for (int m = 0; m < M; ++m) half[m][r] = _mm256_setzero_ps();
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < kBlock; r += 4)
      _mm_storeu_ps(out + m * kBlock + r,
                    lanes8x4(half[m][r], half[m][r + 1], half[m][r + 2], half[m][r + 3]));
}

// R rows of w at a time, so that a vector of x serves R products. For more rows of x; the next
// block of w is fetched meanwhile.
template <int M, int R>
TARGET inline void rows(const uint16_t* w, const uint16_t* x, int64_t k, float* out) {
  Sum sum[M][R];
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) sum[m][r] = zero();
  int64_t i = 0;
  for (; i + LANES <= k; i += LANES) {
    Wide v[M];
    for (int m = 0; m < M; ++m) v[m] = load(x + m * k + i);
    for (int r = 0; r < R; ++r) {
      const uint16_t* at = w + r * k + i;
      __builtin_prefetch(at + kBlock * k);
      const Wide u = load(at);
      for (int m = 0; m < M; ++m) sum[m][r] = dot(sum[m][r], u, v[m]);
    }
  }
  if (i < k)
    for (int r = 0; r < R; ++r) {
      const Wide u = load_some(w + r * k + i, k - i);
      for (int m = 0; m < M; ++m) sum[m][r] = dot(sum[m][r], u, load_some(x + m * k + i, k - i));
    }
  for (int m = 0; m < M; ++m) {
    if (R == 4)
      _mm_storeu_ps(out + m * kBlock, lanes8x4(eight(sum[m][0]), eight(sum[m][1 % R]),
                                               eight(sum[m][2 % R]), eight(sum[m][3 % R])));
    else
      for (int r = 0; r < R; ++r) out[m * kBlock + r] = lanes8(eight(sum[m][r]));
  }
}

template <int M, int R>
TARGET void tile(const uint16_t* w, const uint16_t* x, int64_t k, int count, float* out) {
  int r = 0;
  for (; r + R <= count; r += R) rows<M, R>(w + r * k, x, k, out + r);
  for (; r < count; ++r) rows<M, 1>(w + r * k, x, k, out + r);
}

TARGET void finish(const float* sums, const uint16_t* bias, const uint16_t* residual, uint16_t* y,
                   int count) {
  finish_block(sums, bias, residual, y, count);
}
