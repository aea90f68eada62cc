// Owns what the loops of cpu.cpp share: the record of a packed matrix and the rows of x made ready.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "simd.h"

namespace lowbit {

constexpr int kRows = 16;     // rows of w in a block
constexpr int kColumns = 32;  // columns of w in a block
// How far ahead of the codes and scales memory is fetched, in bytes.
constexpr int64_t kAhead = 8192, kScalesAhead = 1024;

enum ScaleFormat { kFp16, kFp32, kU8 };
enum ZeroFormat { kNone, kInt8, kZeroFp16, kZeroFp32 };

// w[row, column] = scale * (value(code) - zero - shift), see layout.py.
struct Form {
  const uint8_t* codes;   // [row blocks][column blocks][64 * width]
  const uint8_t* scale;   // [row blocks][groups][16] of scale_format
  const uint8_t* zero;    // [row blocks][groups][16] of zero_format, or null
  const float* step;      // [row blocks], for kU8: scale = code * step + low
  const float* low;       // [row blocks]
  const uint16_t* table;  // 128 bf16 values; those of fewer codes repeat; width 8 adds a sign bit
  const uint16_t* bias;   // [n] or null
  int64_t n, k;
  int64_t width;         // bits that a code takes
  int64_t group_halves;  // columns of a group / 16
  int64_t groups;        // groups kept for a row of w
  int64_t scale_format, zero_format;
  int64_t uniform;  // values are evenly spaced by 1
  float shift;
  int32_t isa;  // 0 scalar, 1 avx2, 2 avx512, 3 avx512_bf16

  INLINE int64_t column_blocks() const { return (k + kColumns - 1) / kColumns; }
  INLINE int64_t row_blocks() const { return (n + kRows - 1) / kRows; }
  INLINE int64_t block_bytes() const { return 64 * width; }
};

constexpr int64_t kScaleBytes[] = {2, 4, 1};

// Memory of one thread that is kept between calls.
class Scratch {
 public:
  ~Scratch() { std::free(memory_); }
  void* take(int64_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      size_ = (bytes + 4095) / 4096 * 4096;
      memory_ = std::aligned_alloc(4096, size_);
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  int64_t size_ = 0;
};

inline thread_local Scratch x_memory, sums_memory;

// One product with its arguments, for kernels/program.cpp. x, residual, y and the form's bias are of
// `kind`; vectors.h takes bf16 alone, so that its pointers are written here.
struct Call {
  const Form* form;
  const uint16_t* x;         // [rows, k]
  const uint16_t* residual;  // [rows, n] or null
  uint16_t* y;               // [rows, n]; may be residual
  int64_t rows;
  const float* x_scale;  // [rows] that the products are multiplied with, or null
  int64_t kind;          // Kind

  // Rows [begin, begin + count) of x against the same w.
  INLINE Call part(int64_t begin, int64_t count) const {
    const int64_t each = kind == kFloat ? 2 : 1, n = each * form->n, k = each * form->k;
    return {form,  x + begin * k, residual ? residual + begin * n : nullptr, y + begin * n,
            count, x_scale ? x_scale + begin : nullptr, kind};
  }
};

}  // namespace lowbit
