// The loops without vector intrinsics, which the compiler vectorizes once per target: a block of w
// is written out as fp32 and meets all rows of x.
#pragma once

#include <initializer_list>

#include "form.h"

namespace lowbit {

constexpr int kPlainRows = 16;  // rows of x at a time

INLINE float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t size = half & 0x7fffu;
  float value = static_cast<float>(size) * 0x1p-24f;
  if (size >= 0x400u) value = __builtin_bit_cast(float, (size << 13) + (112u << 23));
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, value) | sign);
}

INLINE float scale_of(const Form& f, int64_t row_block, int64_t group, int row) {
  const int64_t at = (row_block * f.groups + group) * kRows + row;
  if (f.scale_format == kFp16) return half_to_float(reinterpret_cast<const uint16_t*>(f.scale)[at]);
  if (f.scale_format == kFp32) return reinterpret_cast<const float*>(f.scale)[at];
  return f.scale[at] * f.step[row_block] + f.low[row_block];
}

INLINE float zero_of(const Form& f, int64_t row_block, int64_t group, int row) {
  const int64_t at = (row_block * f.groups + group) * kRows + row;
  if (f.zero_format == kInt8) return reinterpret_cast<const int8_t*>(f.zero)[at] + f.shift;
  if (f.zero_format == kZeroFp16)
    return half_to_float(reinterpret_cast<const uint16_t*>(f.zero)[at]) + f.shift;
  if (f.zero_format == kZeroFp32) return reinterpret_cast<const float*>(f.zero)[at] + f.shift;
  return f.shift;
}

// The codes of column pair `v` of a block, w[0] and w[1] of 16 rows each.
INLINE void codes_of(const uint8_t* at, int64_t width, int v, int32_t code[2][kRows]) {
  for (int r = 0; r < kRows; ++r) code[0][r] = code[1][r] = 0;
  int below = 0;
  for (const int plane : {8, 4, 2, 1}) {
    if (!(width & plane)) continue;
    const int each = 16 / plane, shift = v % each * plane;
    const int32_t mask = (1 << plane) - 1;
    uint32_t words[kRows];
    std::memcpy(words, at + v / each * 64, 64);
    for (int r = 0; r < kRows; ++r) {
      code[0][r] |= static_cast<int32_t>(words[r] >> shift & mask) << below;
      code[1][r] |= static_cast<int32_t>(words[r] >> (16 + shift) & mask) << below;
    }
    at += 64 * plane;
    below += plane;
  }
}

// w[column][row] of a block, without scale and zero.
INLINE void values_of(const Form& f, const uint8_t* at, float w[kColumns][kRows]) {
  int32_t code[2][kRows];
  for (int v = 0; v < kColumns / 2; ++v) {
    codes_of(at, f.width, v, code);
    for (int p = 0; p < 2; ++p) {
      float* to = w[2 * v + p];
      if (f.uniform && f.width == 8) {
        for (int r = 0; r < kRows; ++r) {
          const float size = static_cast<float>(code[p][r] & 127) + 0.5f;
          to[r] = code[p][r] & 128 ? -size : size;
        }
      } else if (f.uniform) {
        const float middle = static_cast<float>(1 << (f.width - 1));
        for (int r = 0; r < kRows; ++r) to[r] = static_cast<float>(code[p][r]) - middle;
      } else {
        for (int r = 0; r < kRows; ++r) {
          const float size = load(bf16{f.table[code[p][r] & 127]});
          to[r] = code[p][r] & 128 ? -size : size;
        }
      }
    }
  }
}

// out[m][row] for `rows` rows of x in fp32, [column blocks][kPlainRows][32]; sums: [groups][16].
INLINE void plain_tile(const Form& f, int64_t row_block, int rows, const float* x,
                       const float* sums, float* out) {
  const int64_t blocks = f.column_blocks(), halves = f.group_halves;
  const uint8_t* codes = f.codes + row_block * blocks * f.block_bytes();
  float w[kColumns][kRows], sum[kPlainRows][kRows] = {}, total[kPlainRows][kRows] = {};
  int64_t group = 0, left = halves;
  for (int64_t block = 0; block < blocks; ++block, codes += f.block_bytes(), x += 32 * kPlainRows) {
    values_of(f, codes, w);
    for (int half = 0; half < 2; ++half) {
      for (int m = 0; m < rows; ++m) {
        float part[kRows];
        std::memcpy(part, sum[m], sizeof(part));
        for (int j = 16 * half; j < 16 * half + 16; ++j) {
          const float factor = x[32 * m + j];
          for (int r = 0; r < kRows; ++r) part[r] += factor * w[j][r];
        }
        std::memcpy(sum[m], part, sizeof(part));
      }
      if (--left > 0 && !(half && block + 1 == blocks)) continue;
      float scale[kRows], zero[kRows];
      for (int r = 0; r < kRows; ++r) scale[r] = scale_of(f, row_block, group, r);
      for (int r = 0; r < kRows; ++r) zero[r] = zero_of(f, row_block, group, r);
      for (int m = 0; m < rows; ++m)
        for (int r = 0; r < kRows; ++r) {
          total[m][r] += scale[r] * (sum[m][r] - zero[r] * sums[group * kPlainRows + m]);
          sum[m][r] = 0;
        }
      ++group;
      left = halves;
    }
  }
  std::memcpy(out, total, sizeof(float) * rows * kRows);
}

INLINE void plain_ready(const Form& f, const uint16_t* x, int rows, float* packed, float* sums) {
  const int64_t blocks = f.column_blocks(), columns = blocks * kColumns;
  for (int m = 0; m < rows; ++m) {
    float sum = 0;
    for (int64_t i = 0; i < columns; ++i) {
      const float v = i < f.k ? load(bf16{x[m * f.k + i]}) : 0;
      packed[(i / kColumns * kPlainRows + m) * kColumns + i % kColumns] = v;
      sum += v;
      if ((i + 1) % (16 * f.group_halves) == 0 || i + 1 == columns) {
        sums[i / (16 * f.group_halves) * kPlainRows + m] = sum;
        sum = 0;
      }
    }
  }
}

INLINE void plain_finish(const float* sums, const uint16_t* bias, const uint16_t* residual,
                         uint16_t* y, int count) {
  for (int r = 0; r < count; ++r) {
    float total = sums[r];
    if (bias) total += load(bf16{bias[r]});
    if (residual) total += load(bf16{residual[r]});
    bf16 rounded;
    store(rounded, total);
    y[r] = rounded.bits;
  }
}

// Row blocks [begin, end) of w against at most kPlainRows rows of x.
INLINE void plain_span(const Call& call, const uint16_t* x, const uint16_t* residual, uint16_t* y,
                       int rows, int64_t begin, int64_t end) {
  const Form& f = *call.form;
  const int64_t columns = f.column_blocks() * kColumns;
  float* packed = static_cast<float*>(x_memory.take(kPlainRows * columns * 4));
  float* sums = static_cast<float*>(sums_memory.take(kPlainRows * f.groups * 4));
  plain_ready(f, x, rows, packed, sums);
  float out[kPlainRows * kRows];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t n = block * kRows;
    const int count = static_cast<int>(f.n - n < kRows ? f.n - n : kRows);
    plain_tile(f, block, rows, packed, sums, out);
    for (int m = 0; m < rows; ++m) {
      const int64_t at = m * f.n + n;
      plain_finish(out + kRows * m, f.bias ? f.bias + n : nullptr,
                   residual ? residual + at : nullptr, y + at, count);
    }
  }
}

INLINE void plain_unpack(const Form& f, int64_t row_block, int count, uint16_t* out) {
  const int64_t blocks = f.column_blocks();
  const uint8_t* codes = f.codes + row_block * blocks * f.block_bytes();
  float w[kColumns][kRows];
  for (int64_t block = 0; block < blocks; ++block, codes += f.block_bytes()) {
    values_of(f, codes, w);
    for (int j = 0; j < kColumns; ++j) {
      const int64_t column = kColumns * block + j, group = column / (16 * f.group_halves);
      if (column >= f.k) break;
      for (int r = 0; r < count; ++r) {
        bf16 rounded;
        store(rounded, scale_of(f, row_block, group, r) *
                           (w[j][r] - zero_of(f, row_block, group, r)));
        out[r * f.k + column] = rounded.bits;
      }
    }
  }
}

}  // namespace lowbit
