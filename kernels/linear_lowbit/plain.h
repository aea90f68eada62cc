// The loops in the compiler's own vectors, included once per target inside a namespace of its own: a
// block of w is written out as fp32 and meets all rows of x.
//
// The includer defines TARGET (the function attribute), BYTES (of a vector) and
// look_up<WIDTH>(table, codes): a vector of table[code].

TARGET INLINE float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t size = half & 0x7fffu;
  float value = static_cast<float>(size) * 0x1p-24f;
  if (size >= 0x400u) value = __builtin_bit_cast(float, (size << 13) + (112u << 23));
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, value) | sign);
}

TARGET INLINE float scale_of(const Form& f, int64_t row_block, int64_t group, int row) {
  const int64_t at = (row_block * f.groups + group) * kRows + row;
  if (f.scale_format == kFp16) return half_to_float(reinterpret_cast<const uint16_t*>(f.scale)[at]);
  if (f.scale_format == kFp32) return reinterpret_cast<const float*>(f.scale)[at];
  return f.scale[at] * f.step[row_block] + f.low[row_block];
}

TARGET INLINE float zero_of(const Form& f, int64_t row_block, int64_t group, int row) {
  const int64_t at = (row_block * f.groups + group) * kRows + row;
  if (f.zero_format == kInt8) return reinterpret_cast<const int8_t*>(f.zero)[at];
  if (f.zero_format == kZeroFp16) return half_to_float(reinterpret_cast<const uint16_t*>(f.zero)[at]);
  if (f.zero_format == kZeroFp32) return reinterpret_cast<const float*>(f.zero)[at];
  return 0;
}

constexpr int kLanes = BYTES / 4, kParts = kRows / kLanes;  // a part is a vector of rows
using Signed = int32_t __attribute__((vector_size(BYTES)));

// The values of 16 rows of each column of a block, without scale, zero and plain_shift.
struct Values {
  Floats of[kColumns][kParts];
};

// An integer is its code, or for 8 bits its code - 128; what `values` of vectors.h differ by.
TARGET INLINE float plain_shift(const Form& f) {
  if (!f.uniform) return f.shift;
  return f.width == 8 ? f.shift - 0.5f : f.shift + static_cast<float>(1 << (f.width - 1));
}

template <int WIDTH, bool UNIFORM>
TARGET INLINE void decode(const float* table, const uint8_t* at, Values& w) {
#pragma GCC unroll 16
  for (int v = 0; v < kColumns / 2; ++v)
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      Words code[2] = {};
      int start = 0, below = 0;
#pragma GCC unroll 4
      for (int plane = 8; plane; plane /= 2) {
        if (!(WIDTH & plane)) continue;
        const int each = 16 / plane, shift = v % each * plane;
        const uint32_t mask = ((1u << plane) - 1u) << below;
        Words word;
        std::memcpy(&word, at + start + v / each * 64 + BYTES * part, BYTES);
        code[0] |= (shift < below ? word << (below - shift) : word >> (shift - below)) & mask;
        code[1] |= word >> (16 + shift - below) & mask;
        start += 64 * plane;
        below += plane;
      }
#pragma GCC unroll 2
      for (int p = 0; p < 2; ++p) {
        Signed number = (Signed)code[p];
        if (WIDTH == 8) number = (number & 127) ^ -(number >> 7);
        w.of[2 * v + p][part] =
            UNIFORM ? __builtin_convertvector(number, Floats) : look_up<WIDTH>(table, code[p]);
      }
    }
}

template <int WIDTH>
TARGET void decode_either(const Form& f, const float* table, const uint8_t* at, Values& w) {
  if (f.uniform)
    decode<WIDTH, true>(table, at, w);
  else
    decode<WIDTH, false>(table, at, w);
}

using Decode = void (*)(const Form&, const float*, const uint8_t*, Values&);

Decode decode_of(int64_t width) {
  static const Decode kDecode[] = {decode_either<1>, decode_either<2>, decode_either<3>,
                                   decode_either<4>, decode_either<5>, decode_either<6>,
                                   decode_either<8>};
  return kDecode[width == 8 ? 6 : width - 1];
}

// The table in fp32, with a sign for width 8.
TARGET INLINE void widen_table(const Form& f, float table[256]) {
  for (int i = 0; i < 256; ++i) {
    const float size = load(bf16{f.table[i & 127]});
    table[i] = i & 128 ? -size : size;
  }
}

// Adds the products of columns [16 * half, 16 * half + 16) with M rows of x, [M][32].
template <int M>
TARGET INLINE void add_products(const Values& w, int half, const float* x,
                                Floats (*sum)[kParts]) {
  // One row alone is added in turns, so that a product need not wait for the one before.
  constexpr int U = M == 1 ? 4 : 1;
  Floats part[U][M][kParts] = {};
  for (int j = 16 * half; j < 16 * half + 16; j += U)
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
      for (int i = 0; i < kParts; ++i)
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) part[u][m][i] += w.of[j + u][i] * x[32 * m + j + u];
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int i = 0; i < kParts; ++i) sum[m][i] += part[u][m][i];
}

// out[m][row] for `rows` rows of x in fp32, [column blocks][kPlainRows][32]; sums: [groups][16].
TARGET void plain_tile(const Form& f, int64_t row_block, int rows, const float* table,
                       const float* x, const float* sums, float* out) {
  const int64_t blocks = f.column_blocks(), halves = f.group_halves;
  const uint8_t* codes = f.codes + row_block * blocks * f.block_bytes();
  const Decode decode = decode_of(f.width);
  Values w;
  Floats sum[kPlainRows][kParts] = {};
  float total[kPlainRows][kRows] = {};
  int64_t group = 0, left = halves;
  for (int64_t block = 0; block < blocks; ++block, codes += f.block_bytes(), x += 32 * kPlainRows) {
    decode(f, table, codes, w);
    for (int half = 0; half < 2; ++half) {
      int m = 0;
      for (; m + 4 <= rows; m += 4) add_products<4>(w, half, x + 32 * m, sum + m);
      for (; m < rows; ++m) add_products<1>(w, half, x + 32 * m, sum + m);
      if (--left > 0 && !(half && block + 1 == blocks)) continue;
      float scale[kRows], zero[kRows];
      for (int r = 0; r < kRows; ++r) scale[r] = scale_of(f, row_block, group, r);
      for (int r = 0; r < kRows; ++r) zero[r] = zero_of(f, row_block, group, r) + plain_shift(f);
      for (m = 0; m < rows; ++m) {
        for (int r = 0; r < kRows; ++r)
          total[m][r] +=
              scale[r] * (sum[m][r / kLanes][r % kLanes] - zero[r] * sums[group * kPlainRows + m]);
        for (int i = 0; i < kParts; ++i) sum[m][i] = Floats{};
      }
      ++group;
      left = halves;
    }
  }
  std::memcpy(out, total, sizeof(float) * rows * kRows);
}

template <class T>
TARGET INLINE void plain_ready(const Form& f, const T* x, int rows, float* packed, float* sums) {
  const int64_t blocks = f.column_blocks(), columns = blocks * kColumns;
  for (int m = 0; m < rows; ++m) {
    float sum = 0;
    for (int64_t i = 0; i < columns; ++i) {
      const float v = i < f.k ? load(x[m * f.k + i]) : 0;
      packed[(i / kColumns * kPlainRows + m) * kColumns + i % kColumns] = v;
      sum += v;
      if ((i + 1) % (16 * f.group_halves) == 0 || i + 1 == columns) {
        sums[i / (16 * f.group_halves) * kPlainRows + m] = sum;
        sum = 0;
      }
    }
  }
}

template <class T>
TARGET INLINE void plain_finish(const Call& call, const float* sums, int64_t m, int64_t n,
                                int count) {
  const Form& f = *call.form;
  const int64_t at = m * f.n + n;
  const T *bias = (const T*)f.bias, *residual = (const T*)call.residual;
  for (int r = 0; r < count; ++r) {
    float total = call.x_scale ? sums[r] * call.x_scale[m] : sums[r];
    if (bias) total += load(bias[n + r]);
    if (residual) total += load(residual[at + r]);
    store(((T*)call.y)[at + r], total);
  }
}

template <class T>
TARGET void span_of(const Call& call, int64_t begin, int64_t end) {
  const Form& f = *call.form;
  const int rows = static_cast<int>(call.rows);
  const int64_t columns = f.column_blocks() * kColumns;
  float* packed = static_cast<float*>(x_memory.take(kPlainRows * columns * 4));
  float* sums = static_cast<float*>(sums_memory.take(kPlainRows * f.groups * 4));
  plain_ready(f, (const T*)call.x, rows, packed, sums);
  float out[kPlainRows * kRows], table[256];
  widen_table(f, table);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t n = block * kRows;
    const int count = static_cast<int>(f.n - n < kRows ? f.n - n : kRows);
    plain_tile(f, block, rows, table, packed, sums, out);
    for (int m = 0; m < rows; ++m) plain_finish<T>(call, out + kRows * m, m, n, count);
  }
}

// Row blocks [begin, end) of w against at most kPlainRows rows of x.
TARGET void span(const Call& call, int64_t begin, int64_t end) {
  if (call.kind == kFloat) return span_of<float>(call, begin, end);
  if (call.kind == kHalf) return span_of<fp16>(call, begin, end);
  span_of<bf16>(call, begin, end);
}

TARGET void unpack(const Form& f, int64_t row_block, int count, uint16_t* out) {
  const int64_t blocks = f.column_blocks();
  const uint8_t* codes = f.codes + row_block * blocks * f.block_bytes();
  const float shift = plain_shift(f);
  const Decode decode = decode_of(f.width);
  Values w;
  float table[256];
  widen_table(f, table);
  for (int64_t block = 0; block < blocks; ++block, codes += f.block_bytes()) {
    decode(f, table, codes, w);
    for (int half = 0; half < 2; ++half) {
      const int64_t group = (2 * block + half) / f.group_halves;
      const int64_t first = kColumns * block + 16 * half;
      for (int r = 0; r < count; ++r) {
        const float scale = scale_of(f, row_block, group, r);
        const float zero = zero_of(f, row_block, group, r) + shift;
        for (int j = 0; j < 16 && first + j < f.k; ++j) {
          bf16 rounded;
          store(rounded, scale * (w.of[16 * half + j][r / kLanes][r % kLanes] - zero));
          out[r * f.k + first + j] = rounded.bits;
        }
      }
    }
  }
}

