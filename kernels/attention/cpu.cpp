// One step of causal grouped-query attention over a cache, for few new tokens: norm of each query
// and key head where the model has one, rotary positions (Su et al. 2021), append to the cache,
// softmax(q k / sqrt(d)) v (Ainslie et al. 2023). All sums are kept in float.
#include <algorithm>

#include "heads.h"

struct Call {
  const void* qkv;         // [batch, tokens, (heads + 2 * kv_heads) * dim]: q, k, v
  void* keys;              // [batch, kv_heads, capacity, dim]
  void* values;            // like keys
  const float* cos;        // [positions, dim / 2]
  const float* sin;        // like cos
  const void* query_norm;  // [dim] or null
  const void* key_norm;    // [dim] or null
  void* out;               // [batch, tokens, heads * dim]
  float* rotated;          // scratch [batch, tokens, heads, dim]
  const int64_t* start;    // [batch]: the position of each row's first new token
  int64_t batch, tokens, heads, kv_heads, dim, capacity;
  int64_t window;          // tokens a position sees, itself included; 0 sees all
  int64_t kind;            // Kind
  double eps;
};

// Rotate the queries of one new token into the scratch, its keys and values into the cache.
template <class T>
INLINE void append(const Call& call, int64_t index, float* scratch) {
  const int64_t b = index / call.tokens, dim = call.dim;
  const int64_t at = call.start[b] + index % call.tokens;
  const T* row = (const T*)call.qkv + index * (call.heads + 2 * call.kv_heads) * dim;
  const float *cos = call.cos + at * (dim / 2), *sin = call.sin + at * (dim / 2);
  const float eps = (float)call.eps;
  for (int64_t h = 0; h < call.heads; h++)
    prepare_head<T>(row + h * dim, (const T*)call.query_norm, cos, sin, dim, eps,
                    call.rotated + (index * call.heads + h) * dim);
  row += call.heads * dim;
  for (int64_t h = 0; h < call.kv_heads; h++) {
    const int64_t offset = ((b * call.kv_heads + h) * call.capacity + at) * dim;
    T* key = (T*)call.keys + offset;
    prepare_head<T>(row + h * dim, (const T*)call.key_norm, cos, sin, dim, eps, scratch);
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) store(key[i], scratch[i]);
    memcpy((T*)call.values + offset, row + (call.kv_heads + h) * dim, dim * sizeof(T));
  }
}

// DIM is the head width when it is known at compile time, else 0; `sum` is dim floats of scratch.
template <class T, int DIM>
INLINE void attend(const Call& call, int64_t unit, float* scores, float* sum) {
  const int64_t dim = DIM ? DIM : call.dim;
  const int64_t h = unit % call.heads, index = unit / call.heads;
  const int64_t b = index / call.tokens, end = call.start[b] + index % call.tokens + 1;
  const int64_t begin = call.window && end > call.window ? end - call.window : 0;
  const int64_t kv = b * call.kv_heads + h / (call.heads / call.kv_heads);
  const T* keys = (const T*)call.keys + kv * call.capacity * dim;
  const T* values = (const T*)call.values + kv * call.capacity * dim;
  const float* query = call.rotated + unit * dim;
  const float scale = 1.0f / std::sqrt((float)dim);
  float largest = -INFINITY;
  for (int64_t s = begin; s < end; s++) {
    const T* key = keys + s * dim;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < dim; i++) dot += query[i] * load(key[i]);
    scores[s] = dot * scale;
    largest = scores[s] > largest ? scores[s] : largest;
  }
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t s = begin; s < end; s++) {
    scores[s] = fast_exp(scores[s] - largest);
    total += scores[s];
  }
  float fixed[DIM ? DIM : 1];
  float* acc = DIM ? fixed : sum;
#pragma omp simd
  for (int64_t i = 0; i < dim; i++) acc[i] = 0;
  for (int64_t s = begin; s < end; s++) {
    const T* value = values + s * dim;
    const float p = scores[s];
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) acc[i] += p * load(value[i]);
  }
  T* out = (T*)call.out + unit * dim;
  const float inverse = 1.0f / total;
#pragma omp simd
  for (int64_t i = 0; i < dim; i++) store(out[i], acc[i] * inverse);
}

template <class T>
INLINE void attend_any(const Call& call, int64_t unit, float* scores, float* sum) {
  if (call.dim == 64) return attend<T, 64>(call, unit, scores, sum);
  if (call.dim == 128) return attend<T, 128>(call, unit, scores, sum);
  attend<T, 0>(call, unit, scores, sum);
}

struct Work {
  void (*append)(const Call&, int64_t, float*);
  void (*attend)(const Call&, int64_t, float*, float*);
};

#define WORK(name, type, target)                                                             \
  target static void append_##name(const Call& c, int64_t i, float* s) { append<type>(c, i, s); } \
  target static void attend_##name(const Call& c, int64_t u, float* s, float* a) {           \
    attend_any<type>(c, u, s, a);                                                            \
  }                                                                                          \
  static const Work name = {append_##name, attend_##name};
WORK(bf16_avx512, bf16, FOR_AVX512)
WORK(fp32_avx512, float, FOR_AVX512)
WORK(bf16_avx2, bf16, FOR_AVX2)
WORK(fp32_avx2, float, FOR_AVX2)
WORK(fp16_avx512, fp16, FOR_AVX512)
WORK(fp16_avx2, fp16, FOR_AVX2)
WORK(fp16_any, fp16, )
WORK(bf16_any, bf16, )
WORK(fp32_any, float, )

// By Kind.
struct Works {
  Work of[3];
};

static Works choose() {
  if (HAS_AVX512) return {{fp32_avx512, bf16_avx512, fp16_avx512}};
  if (HAS_AVX2) return {{fp32_avx2, bf16_avx2, fp16_avx2}};
  return {{fp32_any, bf16_any, fp16_any}};
}

static const Work& work_of(const Call& call) {
  static const Works works = choose();
  return works.of[call.kind];
}

// First part: every new token's keys and values are in the cache when all shares are done.
extern "C" void trimtab_attention_append(const Call* call, int64_t share, int64_t shares) {
  const Work& work = work_of(*call);
  float* key = scratch(call->dim);
  for (int64_t i = share; i < call->batch * call->tokens; i += shares) work.append(*call, i, key);
}

// Second part: a query head of a new token is the unit of work.
extern "C" void trimtab_attention_attend(const Call* call, int64_t share, int64_t shares) {
  const Work& work = work_of(*call);
  const int64_t last = *std::max_element(call->start, call->start + call->batch) + call->tokens;
  float* scores = scratch(last + call->dim);
  const int64_t units = call->batch * call->tokens * call->heads;
  const int64_t from = units * share / shares, to = units * (share + 1) / shares;
  for (int64_t u = from; u < to; u++) work.attend(*call, u, scores, scores + last);
}
