// Row blocks written out as bf16 rows, for vectors.h, which includes it once per instruction set.
//
// Needs narrow_pairs(even, odd): two vectors of fp32 rounded to 16 pairs of bf16.

// The pairs of bf16 in `v` as scale * (v - zero), rounded to bf16.
TARGET INLINE __m512i scaled(__m512i v, __m512 scale, __m512 zero) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
  const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(v, high));
  return narrow_pairs(_mm512_mul_ps(_mm512_sub_ps(even, zero), scale),
                      _mm512_mul_ps(_mm512_sub_ps(odd, zero), scale));
}

// Lane i of vector j becomes lane j of vector i.
TARGET INLINE void transpose(__m512i v[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 16; i += 8)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0x88);
      t[i + j + 4] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0xdd);
    }
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    v[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    v[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
  }
}

// out[row, k] in bf16 for `count` rows of a row block.
template <int WIDTH>
TARGET void unpack(const Form& f, int64_t row_block, int count, uint16_t* out) {
  const int64_t blocks = f.column_blocks();
  const uint8_t* codes = f.codes + row_block * blocks * 64 * WIDTH;
  Table table;
  table.load(f.table, kTables<WIDTH>);
  const __m512 step = _mm512_set1_ps(f.step ? f.step[row_block] : 0);
  const __m512 low = _mm512_set1_ps(f.low ? f.low[row_block] : 0);
  for (int64_t block = 0; block < blocks; ++block, codes += 64 * WIDTH) {
    __m512i v[16];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int64_t group = row_block * f.groups + (2 * block + half) / f.group_halves;
      const __m512 scale = scales(f, group, step, low), zero = zeros(f, group);
#pragma GCC unroll 8
      for (int i = 8 * half; i < 8 * half + 8; ++i)
        v[i] = scaled(values<WIDTH>(table, codes, i), scale, zero);
    }
    transpose(v);
    const int64_t rest = f.k - 32 * block;
    const __mmask32 which = rest >= 32 ? 0xffffffffu : (1u << rest) - 1u;
    for (int row = 0; row < count; ++row)
      _mm512_mask_storeu_epi16(out + row * f.k + 32 * block, which, v[row]);
  }
}
