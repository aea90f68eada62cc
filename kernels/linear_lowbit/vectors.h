// The loops for AVX-512, included once per instruction set inside a namespace of its own.
//
// The includer defines TARGET (the function attribute), Number (how a value of x is kept), and
// dot(sum, w, x): 16 fp32 sums plus the products of 16 pairs of bf16 in w with x[0] and x[1].
// A vector of w holds 16 rows; 32 bits of it a pair of columns.

TARGET INLINE __m512i moved(__m512i v, int left) {
  if (left > 0) return _mm512_slli_epi16(v, left);
  return left < 0 ? _mm512_srli_epi16(v, -left) : v;
}

// Bits of `low` where `mask` is set, else those of `high`.
TARGET INLINE __m512i select(__m512i mask, __m512i low, __m512i high) {
  return _mm512_ternarylogic_epi32(mask, low, high, 0xca);
}

struct Table {
  __m512i of[4];

  TARGET INLINE void load(const uint16_t* values, int count) {
    for (int i = 0; i < count; ++i) of[i] = _mm512_loadu_si512(values + 32 * i);
  }
};

template <int WIDTH>
constexpr int kTables = WIDTH == 8 ? 4 : WIDTH == 6 ? 2 : 1;

TARGET INLINE __m512i chunk(const uint8_t* at, int c) { return _mm512_loadu_si512(at + 64 * c); }

// Vector `v` of a block: the values of columns 2v and 2v + 1. Bits above a code may stay in an
// index, for the table repeats itself.
template <int WIDTH>
TARGET INLINE __m512i values(const Table& table, const uint8_t* at, int v) {
  if constexpr (WIDTH == 8) {
    const __m512i word = chunk(at, v / 2);
    const __m512i index = v % 2 ? _mm512_srli_epi16(word, 8) : word;
    const __m512i sign = v % 2 ? word : _mm512_slli_epi16(word, 8);
    const __m512i low = _mm512_permutex2var_epi16(table.of[0], index, table.of[1]);
    const __m512i high = _mm512_permutex2var_epi16(table.of[2], index, table.of[3]);
    const __mmask32 large = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
    const __m512i size = _mm512_mask_blend_epi16(large, low, high);
    return _mm512_ternarylogic_epi32(size, sign, _mm512_set1_epi16(-32768), 0xf8);
  } else {
    __m512i index;
    if constexpr (WIDTH >= 4)
      index = moved(chunk(at, v / 4), -4 * (v % 4));
    else if constexpr (WIDTH >= 2)
      index = moved(chunk(at, v / 8), -2 * (v % 8));
    else
      index = moved(chunk(at, 0), -v);
    if constexpr (WIDTH == 6) {
      const __m512i high = moved(chunk(at, 4 + v / 8), 4 - 2 * (v % 8));
      index = select(_mm512_set1_epi16(15), index, high);
      return _mm512_permutex2var_epi16(table.of[0], index, table.of[1]);
    }
    if constexpr (WIDTH == 5)
      index = select(_mm512_set1_epi16(15), index, moved(chunk(at, 4), 4 - v));
    if constexpr (WIDTH == 3) index = select(_mm512_set1_epi16(3), index, moved(chunk(at, 2), 2 - v));
    return _mm512_permutexvar_epi16(index, table.of[0]);
  }
}

// 16 scales or zeros of group `g` counted from the matrix's first row block.
TARGET INLINE __m512 scales(const Form& f, int64_t g, __m512 step, __m512 low) {
  if (f.scale_format == kFp16)
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(f.scale + 32 * g)));
  if (f.scale_format == kFp32) return _mm512_loadu_ps(f.scale + 64 * g);
  const __m128i codes = _mm_loadu_si128((const __m128i*)(f.scale + 16 * g));
  return _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)), step), low);
}

TARGET INLINE __m512 zeros(const Form& f, int64_t g) {
  __m512 found = _mm512_setzero_ps();
  if (f.zero_format == kInt8)
    found = _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(f.zero + 16 * g))));
  if (f.zero_format == kZeroFp16)
    found = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(f.zero + 32 * g)));
  if (f.zero_format == kZeroFp32) found = _mm512_loadu_ps(f.zero + 64 * g);
  return _mm512_add_ps(found, _mm512_set1_ps(f.shift));
}

template <int M, int U>
TARGET INLINE void clear(__m512 (&sum)[M][U]) {
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) sum[m][u] = _mm512_setzero_ps();
}

// Adds the sums of group `group` to the totals and clears them; x_sums: those of x, [M].
template <int M, int U>
TARGET INLINE void flush(const Form& f, int64_t group, __m512 step, __m512 low,
                         const float* x_sums, __m512 (&sum)[M][U], __m512 (&total)[M]) {
  const __m512 scale = scales(f, group, step, low);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    if constexpr (U == 4) sum[m][1] = _mm512_add_ps(sum[m][1], sum[m][3]);
    if constexpr (U == 4) sum[m][0] = _mm512_add_ps(sum[m][0], sum[m][2]);
    if constexpr (U >= 2) sum[m][0] = _mm512_add_ps(sum[m][0], sum[m][1]);
  }
  if (x_sums) {
    const __m512 zero = zeros(f, group);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
      sum[m][0] = _mm512_fnmadd_ps(zero, _mm512_set1_ps(x_sums[m]), sum[m][0]);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) total[m] = _mm512_fmadd_ps(sum[m][0], scale, total[m]);
  clear(sum);
}

// out[m][row] = the products of one row block with M rows of x. x: [column blocks][M][32]; x_sums:
// [groups][M], those of x over each group, or null when nothing has a zero.
template <int WIDTH, int M>
TARGET void tile(const Form& f, int64_t row_block, const Number* x, const float* x_sums,
                 float* out) {
  // Products are added in turns, so that one need not wait for the one before.
  constexpr int U = M <= 4 ? 4 : M <= 8 ? 2 : 1;
  const int64_t blocks = f.column_blocks(), halves = f.group_halves, bytes = 64 * WIDTH;
  const int64_t x_step = x_sums ? M : 0;
  const uint8_t* codes = f.codes + row_block * blocks * bytes;
  Table table;
  table.load(f.table, kTables<WIDTH>);
  const __m512 step = _mm512_set1_ps(f.step ? f.step[row_block] : 0);
  const __m512 low = _mm512_set1_ps(f.low ? f.low[row_block] : 0);
  const int64_t scale_bytes = kRows * kScaleBytes[f.scale_format];
  int64_t group = row_block * f.groups, left = halves;
  __m512 sum[M][U], total[M];
  clear(sum);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) total[m] = _mm512_setzero_ps();
  for (int64_t block = 0; block < blocks; ++block) {
#pragma GCC unroll 8
    for (int c = 0; c < WIDTH; ++c) __builtin_prefetch(codes + kAhead + 64 * c);
    __builtin_prefetch(f.scale + scale_bytes * group + kScalesAhead);
#pragma GCC unroll 16
    for (int v = 0; v < 16; ++v) {
      if (v == 8 && halves == 1) {
        flush(f, group++, step, low, x_sums, sum, total);
        x_sums += x_step;
      }
      const __m512i w = values<WIDTH>(table, codes, v);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) sum[m][v % U] = dot(sum[m][v % U], w, x + 32 * m + 2 * v);
    }
    left -= 2;
    if (left <= 0 || block + 1 == blocks) {
      flush(f, group++, step, low, x_sums, sum, total);
      x_sums += x_step;
      left = halves;
    }
    codes += bytes;
    x += 32 * M;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) _mm512_storeu_ps(out + 16 * m, total[m]);
}

TARGET INLINE __m256i narrow16(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 none = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  rounded = _mm512_mask_set1_epi32(rounded, none, 0x7fc00000);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

TARGET INLINE __m512 widen16(__mmask16 which, const uint16_t* at) {
  const __m256i bits = _mm256_maskz_loadu_epi16(which, at);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// y = narrow(x_scale * sums + bias + residual) for `count` outputs of row `m` of x.
TARGET void finish(const Call& call, const float* sums, int64_t m, int64_t n, int count) {
  const __mmask16 which = (1u << count) - 1u;
  const uint16_t* bias = call.form->bias ? call.form->bias + n : nullptr;
  const uint16_t* residual = call.residual ? call.residual + m * call.form->n + n : nullptr;
  __m512 total = _mm512_loadu_ps(sums);
  if (call.x_scale) total = _mm512_mul_ps(total, _mm512_set1_ps(call.x_scale[m]));
  if (bias) total = _mm512_add_ps(total, widen16(which, bias));
  if (residual) total = _mm512_add_ps(total, widen16(which, residual));
  _mm256_mask_storeu_epi16(call.y + m * call.form->n + n, which, narrow16(total));
}

// sums[group][M] of x [M, k], rows k apart, and packed[block][M][32] of it, filled with zeros.
TARGET void ready(const Form& f, const uint16_t* x, int rows, int M, Number* packed, float* sums) {
  const int64_t blocks = f.column_blocks();
  for (int m = 0; m < M; ++m) {
    __m512 sum = _mm512_setzero_ps();
    int64_t left = f.group_halves, group = 0;
    for (int64_t block = 0; block < blocks; ++block)
      for (int half = 0; half < 2; ++half) {
        const int64_t at = 32 * block + 16 * half, rest = m < rows ? f.k - at : 0;
        const __mmask16 which = rest >= 16 ? 0xffff : rest > 0 ? (1u << rest) - 1u : 0;
        const __m512 v = widen16(which, x + m * f.k + at);
        if (packed) put(packed + (block * M + m) * 32 + 16 * half, v);
        sum = _mm512_add_ps(sum, v);
        if (--left == 0 || (block + 1 == blocks && half)) {
          if (sums) sums[group * M + m] = _mm512_reduce_add_ps(sum);
          sum = _mm512_setzero_ps();
          left = f.group_halves;
          ++group;
        }
      }
  }
}

#include "unpack.h"

struct Loops {
  int tiles;  // of kTile that are used
  void (*tile[kTiles])(const Form&, int64_t, const Number*, const float*, float*);
  void (*unpack)(const Form&, int64_t, int, uint16_t*);
};

// Twelve rows pay where decoding takes long; elsewhere eight keep more sums independent.
template <int WIDTH>
constexpr Loops of_width() {
  constexpr bool slow = WIDTH >= 5;
  return {slow ? kTiles : kTiles - 1,
          {tile<WIDTH, 1>, tile<WIDTH, 2>, tile<WIDTH, 3>, tile<WIDTH, 4>, tile<WIDTH, 6>,
           tile<WIDTH, 8>, slow ? tile<WIDTH, slow ? 12 : 8> : nullptr},
          unpack<WIDTH>};
}

const Loops& loops_of(int64_t width) {
  static const Loops kLoops[] = {of_width<1>(), of_width<2>(), of_width<3>(), of_width<4>(),
                                 of_width<5>(), of_width<6>(), of_width<8>()};
  return kLoops[width == 8 ? 6 : width - 1];
}

// Row blocks [begin, end) of w against at most kTogether rows of x.
void span(const Call& call, int64_t begin, int64_t end) {
  const Form& f = *call.form;
  const int rows = static_cast<int>(call.rows);
  const Loops& loops = loops_of(f.width);
  const int64_t columns = f.column_blocks() * kColumns;
  const bool zeros = f.zero_format != kNone || f.shift != 0;
  const bool as_is = sizeof(Number) == 2 && rows == 1 && f.k == columns;
  int kind[kTogether], tiles = 0, all = 0;
  for (; all < rows; all += kTile[kind[tiles++]]) {
    kind[tiles] = 0;
    while (kind[tiles] + 1 < loops.tiles && kTile[kind[tiles]] < rows - all) ++kind[tiles];
  }
  const Number* from = reinterpret_cast<const Number*>(call.x);
  Number* packed = nullptr;
  if (!as_is) from = packed = static_cast<Number*>(x_memory.take(all * columns * sizeof(Number)));
  float* sums = zeros ? static_cast<float*>(sums_memory.take(all * f.groups * 4)) : nullptr;
  if (zeros || !as_is)
    for (int t = 0, m = 0; t < tiles; m += kTile[kind[t++]])
      ready(f, call.x + m * f.k, rows - m, kTile[kind[t]], packed ? packed + m * columns : nullptr,
            sums ? sums + m * f.groups : nullptr);
  alignas(64) float out[kTile[kTiles - 1] * kRows];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t n = block * kRows;
    const int count = static_cast<int>(f.n - n < kRows ? f.n - n : kRows);
    for (int t = 0, m = 0; t < tiles; m += kTile[kind[t++]]) {
      loops.tile[kind[t]](f, block, from + m * columns, sums ? sums + m * f.groups : nullptr, out);
      for (int i = 0; i < kTile[kind[t]] && m + i < rows; ++i)
        finish(call, out + kRows * i, m + i, n, count);
    }
  }
}
