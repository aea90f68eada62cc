// Causal grouped-query attention over a cache in codes, for one pass of few new tokens: norm and
// rotary positions, append, quantize the blocks that are complete, attend. The newest tokens are
// read in 16 bit from a ring, older ones from their codes, a block at a time decoded into a buffer
// that stays in the first-level cache and serves every query of the unit. All sums are float.
#include "kv_codes.h"

struct Call {
  const void* qkv;         // [batch, total, (heads + 2 * kv_heads) * dim]: q, k, v
  void* keys;              // ring [batch, kv_heads, slots, dim]
  void* values;            // like keys
  uint8_t* key_codes;      // see kernels/kv_codes/codes.py, as the three below
  uint16_t* key_scale;
  uint8_t* value_codes;
  uint16_t* value_scale;
  const float* cos;        // [positions, dim / 2]
  const float* sin;        // like cos
  const void* query_norm;  // [dim] or null
  const void* key_norm;    // [dim] or null
  void* out;               // [batch, total, heads * dim]
  const int64_t* start;    // [batch]: the position of each row's first token of qkv
  int64_t batch, total, first, tokens;  // this pass takes tokens first, first + 1, ...
  int64_t heads, kv_heads, dim, slots, blocks, group, residual;
  int64_t window;          // tokens a position sees, itself included; 0 sees all
  int64_t bits, is_bf16;
  int64_t isa;             // 2: the best there is; 1: AVX2 at most; 0: plain code
  double eps;
};

// At most so many query rows share a decoded block: their scores have to stay in cache too.
constexpr int64_t kRows = 32;

// What depends on the number of bits: a block as floats, see kv_codes.h.
struct Decode {
  void (*keys)(const uint8_t*, const uint16_t*, int64_t dim, float* scales, float* to);
  void (*values)(const uint8_t*, const uint16_t*, int64_t dim, int64_t width, float* scales,
                 float* to);
};

INLINE int64_t coded(const Call& call, int64_t length) {
  const int64_t old = length - call.residual;
  return old > 0 ? old / call.group * call.group : 0;
}

template <class T>
INLINE const T* row_of(const Call& call, int64_t b, int64_t t, int64_t head) {
  const int64_t all = call.heads + 2 * call.kv_heads;
  return (const T*)call.qkv + ((b * call.total + call.first + t) * all + head) * call.dim;
}

// One key and value head of one sequence: its new tokens into the ring, blocks into codes.
template <class T>
INLINE void append(const Call& call, int64_t unit) {
  const int64_t dim = call.dim, half = dim / 2, size = call.group;
  const int64_t b = unit / call.kv_heads, h = unit % call.kv_heads;
  const int64_t from = call.start[b] + call.first;
  T* keys = (T*)call.keys + unit * call.slots * dim;
  T* values = (T*)call.values + unit * call.slots * dim;
  float* buffer = scratch((size + 3) * dim);
  for (int64_t t = 0; t < call.tokens; t++) {
    const int64_t at = from + t, slot = at % call.slots * dim;
    prepare_head<T>(row_of<T>(call, b, t, call.heads + h), (const T*)call.key_norm,
                    call.cos + at * half, call.sin + at * half, dim, (float)call.eps, buffer);
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) store(keys[slot + i], buffer[i]);
    memcpy(values + slot, row_of<T>(call, b, t, call.heads + call.kv_heads + h), dim * sizeof(T));
  }
  const int bits = (int)call.bits;
  const int64_t bytes = (dim * bits + 7) / 8, groups = (dim + size - 1) / size;
  const int64_t last = coded(call, from + call.tokens) / size;
  for (int64_t g = coded(call, from) / size; g < last; g++) {
    const int64_t block = unit * call.blocks + g;
    for (int64_t s = 0; s < size; s++) {
      const T* key = keys + (g * size + s) % call.slots * dim;
      for (int64_t i = 0; i < dim; i++) buffer[s * dim + i] = load(key[i]);
    }
    encode_keys(buffer, bits, size, dim, call.key_codes + block * dim * (size * bits / 8),
                call.key_scale + block * 2 * dim, buffer + size * dim);
    for (int64_t s = 0; s < size; s++) {
      const T* value = values + (g * size + s) % call.slots * dim;
      for (int64_t i = 0; i < dim; i++) buffer[i] = load(value[i]);
      encode_value(buffer, bits, size, dim, call.value_codes + (block * size + s) * bytes,
                   call.value_scale + (block * size + s) * 2 * groups);
    }
  }
}

template <int L>
struct Lanes {
  typedef float Vector __attribute__((vector_size(4 * L)));
};

// out[r][s] = sum over d of query[r][d] * keys[d][s], for NR rows and 2 * L tokens.
template <int L, int NR>
INLINE void score_rows(const float* query, int64_t width, const float* keys, int64_t size,
                       int64_t dim, float* out, int64_t stride) {
  typedef typename Lanes<L>::Vector Vector;
  Vector sum[NR][2] = {};
  for (int64_t d = 0; d < dim; d++) {
    Vector key[2];
    memcpy(key, keys + d * size, sizeof(key));
    for (int r = 0; r < NR; r++) {
      const float q = query[r * width + d];
      sum[r][0] += q * key[0];
      sum[r][1] += q * key[1];
    }
  }
  for (int r = 0; r < NR; r++) memcpy(out + r * stride, sum[r], sizeof(sum[r]));
}

// out[r][c] += sum over s of p[r][s] * values[s][c], for NR rows and NV * L channels.
template <int L, int NR, int NV>
INLINE void mix_rows(const float* p, int64_t stride, const float* values, int64_t tokens,
                     int64_t width, float* out) {
  typedef typename Lanes<L>::Vector Vector;
  Vector sum[NR][NV];
  for (int r = 0; r < NR; r++) memcpy(sum[r], out + r * width, sizeof(sum[r]));
  for (int64_t s = 0; s < tokens; s++) {
    Vector value[NV];
    memcpy(value, values + s * width, sizeof(value));
    for (int r = 0; r < NR; r++)
      for (int v = 0; v < NV; v++) sum[r][v] += p[r * stride + s] * value[v];
  }
  for (int r = 0; r < NR; r++) memcpy(out + r * width, sum[r], sizeof(sum[r]));
}

template <int L, int NR>
INLINE void mix_wide(const float* p, int64_t stride, const float* values, int64_t tokens,
                     int64_t width, float* out) {
  int64_t c = 0;
  for (; c + 4 * L <= width; c += 4 * L)
    mix_rows<L, NR, 4>(p, stride, values + c, tokens, width, out + c);
  for (; c < width; c += L) mix_rows<L, NR, 1>(p, stride, values + c, tokens, width, out + c);
}

// Scores of `rows` queries with a decoded block of keys.
template <int L>
INLINE void score(const float* query, int64_t rows, int64_t width, const float* keys, int64_t size,
                  int64_t dim, float* out, int64_t stride) {
  for (; rows > 0; rows -= 4, query += 4 * width, out += 4 * stride)
    for (int64_t s = 0; s < size; s += 2 * L) {
      if (rows >= 4) score_rows<L, 4>(query, width, keys + s, size, dim, out + s, stride);
      if (rows == 3) score_rows<L, 3>(query, width, keys + s, size, dim, out + s, stride);
      if (rows == 2) score_rows<L, 2>(query, width, keys + s, size, dim, out + s, stride);
      if (rows == 1) score_rows<L, 1>(query, width, keys + s, size, dim, out + s, stride);
    }
}

// Adds what `tokens` values weighed by p contribute to `rows` queries.
template <int L>
INLINE void mix(const float* p, int64_t rows, int64_t stride, const float* values, int64_t tokens,
                int64_t width, float* out) {
  for (; rows > 0; rows -= 4, p += 4 * stride, out += 4 * width) {
    if (rows >= 4) mix_wide<L, 4>(p, stride, values, tokens, width, out);
    if (rows == 3) mix_wide<L, 3>(p, stride, values, tokens, width, out);
    if (rows == 2) mix_wide<L, 2>(p, stride, values, tokens, width, out);
    if (rows == 1) mix_wide<L, 1>(p, stride, values, tokens, width, out);
  }
}

// The queries of up to `step` tokens for one key and value head. Rows are ordered by token, so that
// the rows which see a block as codes are the last ones.
template <class T, int L>
INLINE void attend(const Call& call, const Decode& decode, int64_t unit, int64_t step) {
  const int64_t dim = call.dim, half = dim / 2, size = call.group;
  const int64_t share = call.heads / call.kv_heads, steps = (call.tokens + step - 1) / step;
  const int64_t head = unit / steps, first = unit % steps * step;
  const int64_t b = head / call.kv_heads, h = head % call.kv_heads;
  const int64_t count = first + step < call.tokens ? step : call.tokens - first;
  const int64_t rows = count * share, at = call.start[b] + call.first + first, end = at + count;
  const int64_t width = (dim + 15) / 16 * 16, groups = (dim + size - 1) / size;
  const auto end_of = [&](int64_t r) { return at + r / share + 1; };
  const auto begin_of = [&](int64_t r) {
    return call.window && end_of(r) > call.window ? end_of(r) - call.window : (int64_t)0;
  };
  // What a row reads from the ring, within [from, to).
  const auto raw_begin = [&](int64_t r, int64_t from) {
    const int64_t seen = coded(call, end_of(r)), begin = begin_of(r) > seen ? begin_of(r) : seen;
    return begin > from ? begin : from;
  };
  const auto raw_end = [&](int64_t r, int64_t to) { return end_of(r) < to ? end_of(r) : to; };
  // The first row that sees the block at `token` as codes.
  const auto first_coded = [&](int64_t token) {
    int64_t r = rows;
    while (r > 0 && coded(call, end_of(r - 1)) > token) r--;
    return r;
  };
  const int64_t base = begin_of(0) / size * size, old = coded(call, end), raw = raw_begin(0, 0);
  const int64_t stride = (end - base + size - 1) / size * size;

  float* query = scratch(rows * (2 * width + stride) + size * (width + 2 * groups) + 2 * dim);
  float *sum = query + rows * width, *scores = sum + rows * width;
  float *tile = scores + rows * stride, *scales = tile + size * width;
  const float scale = 1.0f / std::sqrt((float)dim);
  for (int64_t r = 0; r < rows; r++) {
    const int64_t t = first + r / share, position = at + r / share;
    prepare_head<T>(row_of<T>(call, b, t, h * share + r % share), (const T*)call.query_norm,
                    call.cos + position * half, call.sin + position * half, dim, (float)call.eps,
                    query + r * width);
    for (int64_t i = 0; i < dim; i++) query[r * width + i] *= scale;
  }
  const auto fetch = [&](const void* ring, int64_t from, int64_t to) {
    for (int64_t s = from; s < to; s++) {
      const T* one = (const T*)ring + (head * call.slots + s % call.slots) * dim;
      float* row = tile + (s - from) * width;
#pragma omp simd
      for (int64_t i = 0; i < dim; i++) row[i] = load(one[i]);
    }
  };

  for (int64_t token = base; token < old; token += size) {
    const int64_t block = head * call.blocks + token / size, r = first_coded(token);
    decode.keys(call.key_codes + block * dim * (size * call.bits / 8),
                call.key_scale + block * 2 * dim, dim, scales, tile);
    score<L>(query + r * width, rows - r, width, tile, size, dim,
             scores + r * stride + token - base, stride);
  }
  for (int64_t token = raw; token < end; token += size) {
    const int64_t to = token + size < end ? token + size : end;
    fetch(call.keys, token, to);
    for (int64_t r = 0; r < rows; r++) {
      const float* q = query + r * width;
      for (int64_t s = raw_begin(r, token); s < raw_end(r, to); s++) {
        const float* key = tile + (s - token) * width;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < dim; i++) dot += q[i] * key[i];
        scores[r * stride + s - base] = dot;
      }
    }
  }

  for (int64_t r = 0; r < rows; r++) {
    float* p = scores + r * stride;
    const int64_t from = begin_of(r) - base, to = end_of(r) - base;
    for (int64_t s = 0; s < from; s++) p[s] = 0;
    float largest = -INFINITY, total = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t s = from; s < to; s++) largest = p[s] > largest ? p[s] : largest;
#pragma omp simd reduction(+ : total)
    for (int64_t s = from; s < to; s++) {
      p[s] = fast_exp(p[s] - largest);
      total += p[s];
    }
    const float inverse = 1.0f / total;
#pragma omp simd
    for (int64_t s = from; s < to; s++) p[s] *= inverse;
    for (int64_t i = 0; i < width; i++) sum[r * width + i] = 0;
  }

  // Decoding leaves the channels from dim to width alone.
  for (int64_t i = 0; i < size * width; i++) tile[i] = 0;
  for (int64_t token = base; token < old; token += size) {
    const int64_t block = head * call.blocks + token / size, r = first_coded(token);
    decode.values(call.value_codes + block * size * ((dim * call.bits + 7) / 8),
                  call.value_scale + block * size * 2 * groups, dim, width, scales, tile);
    mix<L>(scores + r * stride + token - base, rows - r, stride, tile, size, width,
           sum + r * width);
  }
  for (int64_t token = raw; token < end; token += size) {
    const int64_t to = token + size < end ? token + size : end;
    fetch(call.values, token, to);
    for (int64_t r = 0; r < rows; r++) {
      const int64_t from = raw_begin(r, token), many = raw_end(r, to) - from;
      if (many > 0)
        mix<L>(scores + r * stride + from - base, 1, stride, tile + (from - token) * width, many,
               width, sum + r * width);
    }
  }
  for (int64_t r = 0; r < rows; r++) {
    const int64_t row = b * call.total + call.first + first + r / share;
    T* out = (T*)call.out + (row * call.heads + h * share + r % share) * dim;
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) store(out[i], sum[r * width + i]);
  }
}

#define DECODE(name, tail, bits, size, target)                                                 \
  target static void keys_##name(const uint8_t* c, const uint16_t* k, int64_t d, float* s,     \
                                 float* to) {                                                  \
    decode_keys##tail<bits, size>(c, k, d, s, to);                                             \
  }                                                                                            \
  target static void values_##name(const uint8_t* c, const uint16_t* k, int64_t d, int64_t w,  \
                                   float* s, float* to) {                                      \
    decode_values##tail<bits, size>(c, k, d, w, s, to);                                        \
  }
#define ISA(isa, tail, lanes, target)                                                          \
  DECODE(isa##_8_32, tail, 8, 32, target)                                                      \
  DECODE(isa##_4_32, tail, 4, 32, target)                                                      \
  DECODE(isa##_2_32, tail, 2, 32, target)                                                      \
  DECODE(isa##_8_64, tail, 8, 64, target)                                                      \
  DECODE(isa##_4_64, tail, 4, 64, target)                                                      \
  DECODE(isa##_2_64, tail, 2, 64, target)                                                      \
  static const Decode decode_##isa[] = {                                                       \
      {keys_##isa##_8_32, values_##isa##_8_32}, {keys_##isa##_4_32, values_##isa##_4_32},      \
      {keys_##isa##_2_32, values_##isa##_2_32}, {keys_##isa##_8_64, values_##isa##_8_64},      \
      {keys_##isa##_4_64, values_##isa##_4_64}, {keys_##isa##_2_64, values_##isa##_2_64}};     \
  target static void append_bf16_##isa(const Call& c, int64_t u) { append<bf16>(c, u); }       \
  target static void append_fp32_##isa(const Call& c, int64_t u) { append<float>(c, u); }      \
  target static void attend_bf16_##isa(const Call& c, const Decode& d, int64_t u, int64_t s) { \
    attend<bf16, lanes>(c, d, u, s);                                                           \
  }                                                                                            \
  target static void attend_fp32_##isa(const Call& c, const Decode& d, int64_t u, int64_t s) { \
    attend<float, lanes>(c, d, u, s);                                                          \
  }                                                                                            \
  static const Work work_##isa = {append_bf16_##isa, append_fp32_##isa, attend_bf16_##isa,     \
                                  attend_fp32_##isa, decode_##isa};

struct Work {
  void (*append_bf16)(const Call&, int64_t);
  void (*append_fp32)(const Call&, int64_t);
  void (*attend_bf16)(const Call&, const Decode&, int64_t, int64_t);
  void (*attend_fp32)(const Call&, const Decode&, int64_t, int64_t);
  const Decode* decode;
};

#if defined(__x86_64__)
ISA(avx512, _avx512, 16, FOR_AVX512)
#else
ISA(avx512, , 16, )
#endif
ISA(avx2, , 8, FOR_AVX2)
ISA(any, , 4, )

static const Work& work_of(const Call& call) {
  if (HAS_AVX512 && call.isa > 1) return work_avx512;
  if (HAS_AVX2 && call.isa > 0) return work_avx2;
  return work_any;
}

// First part: every new token is in the ring, every complete block in codes.
extern "C" void trimtab_kv_append(const Call* call, int64_t share, int64_t shares) {
  const Work& work = work_of(*call);
  const auto append = call->is_bf16 ? work.append_bf16 : work.append_fp32;
  const int64_t units = call->batch * call->kv_heads;
  for (int64_t u = units * share / shares; u < units * (share + 1) / shares; u++)
    append(*call, u);
}

// Second part: the unit of work is a key and value head with the queries of a few tokens.
extern "C" void trimtab_kv_attend(const Call* call, int64_t share, int64_t shares) {
  const Work& work = work_of(*call);
  const auto attend = call->is_bf16 ? work.attend_bf16 : work.attend_fp32;
  const int width = call->bits == 8 ? 0 : call->bits == 4 ? 1 : 2;
  const Decode& decode = work.decode[width + (call->group == 32 ? 0 : 3)];
  const int64_t each = call->heads / call->kv_heads;
  const int64_t step = each < kRows ? kRows / each : 1;
  const int64_t units = call->batch * call->kv_heads * ((call->tokens + step - 1) / step);
  for (int64_t u = units * share / shares; u < units * (share + 1) / shares; u++)
    attend(*call, decode, u, step);
}
