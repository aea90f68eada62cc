// Owns what both attention kernels do to a head before it is attended to, and their scratch memory.
#pragma once

#include "../simd.h"

#include <cmath>
#include <vector>

// Norm of one head where the model has one, then rotary positions (Su et al. 2021): `cos` and `sin`
// are the row of the head's position, `to` is dim floats.
template <class T>
INLINE void prepare_head(const T* from, const T* norm, const float* cos, const float* sin,
                         int64_t dim, float eps, float* to) {
  const int64_t half = dim / 2;
  float scale = 1.0f;
  if (norm) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < dim; i++) total += load(from[i]) * load(from[i]);
    scale = 1.0f / std::sqrt(total / (float)dim + eps);
  }
#pragma omp simd
  for (int64_t i = 0; i < half; i++) {
    float a = load(from[i]) * scale, b = load(from[i + half]) * scale;
    if (norm) {
      a *= load(norm[i]);
      b *= load(norm[i + half]);
    }
    to[i] = a * cos[i] - b * sin[i];
    to[i + half] = b * cos[i] + a * sin[i];
  }
}

// `size` floats that belong to the calling thread until it asks again. They begin a cache line: a
// vector that lies across two of them costs twice.
static float* scratch(int64_t size) {
  static thread_local std::vector<float> memory;
  if ((int64_t)memory.size() < size + 16) memory.resize(size + 1024);
  return (float*)(((uintptr_t)memory.data() + 63) & ~(uintptr_t)63);
}
