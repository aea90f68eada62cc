// The loop of cpu.cpp, included once per instruction set inside a namespace of its own.
//
// The includer defines TARGET (the function attribute), Sum (int32 sums of 16 rows of w with one
// row of x), Codes (four columns of 16 rows of w), Spread (four columns of x for every row of w)
// and on them: zero(), load(p), spread(p), dot(sum, codes, spread), add(a, b), keep(sum, out).

// M rows of x with R blocks of 16 rows of w, U steps of four columns at a time, each into sums of
// its own: one row of x alone would wait for its sum at every step.
// out[(m * R + r) * 16 + i] = sum_k (w[16 r + i, k] + 128) * x[m, k].
// Loops are unrolled by name: sums whose index stays a variable would be kept in memory.
template <int M, int R, int U>
TARGET void tile(const uint8_t* w, const int8_t* x, int64_t stride, int64_t quads, int32_t* out) {
  const int64_t block = quads * kQuadBytes;
  Sum sum[U][M][R];
#pragma GCC unroll 16
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sum[u][m][r] = zero();
  int64_t q = 0;
  for (; q + U <= quads; q += U)
#pragma GCC unroll 16
    for (int u = 0; u < U; ++u) {
      Codes v[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const uint8_t* at = w + r * block + (q + u) * kQuadBytes;
        // One block is a stream; of two, the same place in the next two is fetched.
        if (R == 1)
          __builtin_prefetch(at + kAhead);
        else
          __builtin_prefetch(at + R * block, 0, 2);
        v[r] = load(at);
      }
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Spread s = spread(x + m * stride + 4 * (q + u));
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sum[u][m][r] = dot(sum[u][m][r], v[r], s);
      }
    }
  for (; U > 1 && q < quads; ++q)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Codes v = load(w + r * block + q * kQuadBytes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m)
        sum[0][m][r] = dot(sum[0][m][r], v, spread(x + m * stride + 4 * q));
    }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int u = 1; u < U; ++u) sum[0][m][r] = add(sum[0][m][r], sum[u][m][r]);
      keep(sum[0][m][r], out + (m * R + r) * 16);
    }
}

TARGET void quantize_bf16(const Weight& w, const void* x, void* apart, Row row) {
  quantize<bf16>(w, x, apart, row);
}
TARGET void quantize_fp32(const Weight& w, const void* x, void* apart, Row row) {
  quantize<float>(w, x, apart, row);
}
TARGET void finish_bf16(const Finish& f, const int32_t* sums, int64_t n, int64_t at, int count) {
  finish_block<bf16>(f, sums, n, at, count);
}
TARGET void finish_fp32(const Finish& f, const int32_t* sums, int64_t n, int64_t at, int count) {
  finish_block<float>(f, sums, n, at, count);
}
