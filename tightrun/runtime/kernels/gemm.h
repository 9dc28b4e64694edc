// The one matrix product: packed words, accumulators in registers.
#pragma once

#include "words.h"

namespace tightrun {

#if TIGHTRUN_AVX512
constexpr int kTileRows = 6;     // 6 x 4 accumulators, 4 columns and a broadcast: 29 of 32 registers
constexpr int kTileVectors = 4;
#else
constexpr int kTileRows = 4;     // 4 x 2 of 16 registers
constexpr int kTileVectors = 2;
#endif

// C[Rows][Vectors * kLanes] = scale[row] * C + A[Rows][steps] B[steps][Vectors * kLanes], in words;
// without `scale` C is overwritten.
template <class Math, int Rows, int Vectors>
inline void product_tile(const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride,
                         float* c, int64_t c_stride, int steps, const float* scale) {
  F32 sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      sum[r][v] = scale ? load<F32>(c + r * c_stride + v * kLanes) * scale[r] : F32{};
  for (int step = 0; step < steps; ++step) {
    U32 column[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) column[v] = load<U32>(b + step * b_stride + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const U32 factor = splat(a[r * a_stride + step]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[r][v] = Math::dot(sum[r][v], factor, column[v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(c + r * c_stride + v * kLanes, sum[r][v]);
}

// The same for any number of vectors of columns.
template <class Math, int Rows>
void product(const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride, float* c,
             int64_t c_stride, int steps, int vectors, const float* scale) {
  for (; vectors >= kTileVectors; vectors -= kTileVectors) {
    product_tile<Math, Rows, kTileVectors>(a, a_stride, b, b_stride, c, c_stride, steps, scale);
    b += kTileVectors * kLanes;
    c += kTileVectors * kLanes;
  }
  if constexpr (kTileVectors > 2) {
    if (vectors == 3)
      product_tile<Math, Rows, 3>(a, a_stride, b, b_stride, c, c_stride, steps, scale);
    else if (vectors == 2)
      product_tile<Math, Rows, 2>(a, a_stride, b, b_stride, c, c_stride, steps, scale);
  }
  if (vectors == 1) product_tile<Math, Rows, 1>(a, a_stride, b, b_stride, c, c_stride, steps, scale);
}

}  // namespace tightrun
