// x W^T in bfloat16 on processors without such products of their own: numbers are widened on their
// way into the registers, so that weights are read as they lie, and multiplied in float32.

#include <algorithm>

#include "team.h"
#include "words.h"

namespace tightrun {

// Mirrored field by field in abi.py; strides count elements.
struct LinearArgs {
  OpenMp omp;
  const void *x, *weight, *bias;
  void* out;
  int64_t x_stride, weight_stride, out_stride, rows, inner, columns;
  int32_t threads;
};

constexpr int kTile = 6;         // rows of x at a time, and
constexpr int kTileColumns = 2;  // of W: 6 x 2 sums, 2 of W, 1 of x and a mask are 16 registers
constexpr int kPair = 2 * kLanes;
constexpr int kDepth = 768;      // a tile of x, widened, is 18 KiB: half of the first cache
constexpr int kTileStride = kDepth + 16;  // no two rows begin in the same set of it
constexpr int kFewRows = 4;       // so few wait for the memory
constexpr int kColumnsEarly = 4;
constexpr int kItemRows = 256;
constexpr int kItemColumns = 48;
constexpr int kItemsPerThread = 4;

inline F32 even(U32 pairs) { return (F32)(pairs << 16); }
inline F32 odd(U32 pairs) { return (F32)(pairs & 0xffff0000u); }

// Compilers would rather load it again for every product, and loads are what binds then.
inline F32 in_register(F32 x) {
#if defined(__x86_64__)
  __asm__("" : "+x"(x));
#endif
  return x;
}

inline U32 load_pairs(const bf16* from, int64_t count) {
  return count >= kPair ? load<U32>(from) : load_part<U32>(from, static_cast<int>(2 * count));
}

inline float sum_of(F32 lanes) {
  if constexpr (kLanes >= 16) lanes += rotate<8>(lanes);
  if constexpr (kLanes >= 8) lanes += rotate<4>(lanes);
  lanes += rotate<2>(lanes);
  return lanes[0] + lanes[1];
}

// Rows of x for `depth` of the summed dimension, the even numbers of kPair before the odd ones; what
// is missing is zero.
inline void widen(const bf16* x, int64_t stride, int rows, int64_t depth, float* tile) {
  for (int r = 0; r < rows; ++r)
    for (int64_t k = 0; k < depth; k += kPair) {
      const U32 pairs = load_pairs(x + r * stride + k, depth - k);
      store(tile + r * kTileStride + k, even(pairs));
      store(tile + r * kTileStride + k + kLanes, odd(pairs));
    }
}

// sums[row][column] += x W^T for a tile, over `depth`. `Streamed` weights come from memory and are
// fetched some columns early.
template <bool Streamed, int Rows, int Columns>
inline void add_tile(const float* tile, const bf16* weight, int64_t stride, int64_t depth,
                     float* sums, int64_t sums_stride) {
  F32 sum[Rows][Columns] = {};
  const auto step = [&](int64_t k, auto&& pairs) {
    F32 w[Columns];
#pragma GCC unroll 4
    for (int c = 0; c < Columns; ++c) w[c] = even(pairs(c));
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const F32 x = in_register(load<F32>(tile + r * kTileStride + k));
#pragma GCC unroll 4
      for (int c = 0; c < Columns; ++c) sum[r][c] += x * w[c];
    }
#pragma GCC unroll 4
    for (int c = 0; c < Columns; ++c) w[c] = odd(pairs(c));
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const F32 x = in_register(load<F32>(tile + r * kTileStride + k + kLanes));
#pragma GCC unroll 4
      for (int c = 0; c < Columns; ++c) sum[r][c] += x * w[c];
    }
  };
  int64_t k = 0;
  for (; k + kPair <= depth; k += kPair) {
    if constexpr (Streamed)
      for (int c = 0; c < Columns; ++c)
        __builtin_prefetch(weight + (c + kColumnsEarly) * stride + k, 0, 3);
    step(k, [&](int c) { return load<U32>(weight + c * stride + k); });
  }
  if (k < depth) step(k, [&](int c) { return load_pairs(weight + c * stride + k, depth - k); });
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < Columns; ++c) sums[r * sums_stride + c] += sum_of(sum[r][c]);
}

template <bool Streamed, int Rows>
inline void add_columns(const float* tile, const bf16* weight, int64_t stride, int64_t depth,
                        int columns, float* sums, int64_t sums_stride) {
  int c = 0;
  for (; c + kTileColumns <= columns; c += kTileColumns)
    add_tile<Streamed, Rows, kTileColumns>(tile, weight + c * stride, stride, depth, sums + c, sums_stride);
  for (; c < columns; ++c)
    add_tile<Streamed, Rows, 1>(tile, weight + c * stride, stride, depth, sums + c, sums_stride);
}

// Fetches a share of the weights that the thread will multiply next, while it multiplies these.
inline void fetch_share(const bf16* weight, int64_t stride, int columns, int64_t depth, int64_t part,
                        int64_t parts) {
  for (int64_t c = columns * part / parts; c < columns * (part + 1) / parts; ++c)
    for (int64_t k = 0; k < depth; k += 32) __builtin_prefetch(weight + c * stride + k, 0, 2);
}

void linear(const LinearArgs& a) {
  const auto* x = static_cast<const bf16*>(a.x);
  const auto* weight = static_cast<const bf16*>(a.weight);
  const auto* bias = static_cast<const bf16*>(a.bias);
  auto* out = static_cast<bf16*>(a.out);
  const int64_t fair = a.columns / (int64_t{kItemsPerThread} * std::max(1, a.threads));
  const int item_columns = static_cast<int>(
      std::clamp<int64_t>(fair / kTileColumns * kTileColumns, kTileColumns, kItemColumns));
  const int64_t across = (a.columns + item_columns - 1) / item_columns;
  const int64_t down = (a.rows + kItemRows - 1) / kItemRows;
  share_out(a.omp, across * down, a.threads, [&](int64_t item, int64_t next, int) {
    alignas(64) float tile[kTile * kTileStride];
    alignas(64) float sums[kItemRows * kItemColumns];
    const int64_t column = item / down * item_columns, row = item % down * kItemRows;
    const int columns = static_cast<int>(std::min<int64_t>(item_columns, a.columns - column));
    const int rows = static_cast<int>(std::min<int64_t>(kItemRows, a.rows - row));
    const int64_t ahead = next / down * item_columns;
    const bool new_ahead = ahead != column && ahead < a.columns;
    const int columns_ahead =
        new_ahead ? static_cast<int>(std::min<int64_t>(item_columns, a.columns - ahead)) : 0;
    const int tiles = (rows + kTile - 1) / kTile;
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c)
        sums[r * kItemColumns + c] = bias ? (float)(even(splat((uint32_t)bias[column + c])))[0] : 0.0f;
    for (int64_t k = 0; k < a.inner; k += kDepth) {
      const int64_t depth = std::min<int64_t>(kDepth, a.inner - k);
      const bf16* w = weight + column * a.weight_stride + k;
      for (int t = 0; t < tiles; ++t) {
        const int first = t * kTile, some = std::min(kTile, rows - first);
        if (tiles > 1)
          fetch_share(weight + ahead * a.weight_stride + k, a.weight_stride, columns_ahead, depth, t,
                      tiles);
        widen(x + (row + first) * a.x_stride + k, a.x_stride, some, depth, tile);
        float* to = sums + first * kItemColumns;
        const auto add = [&](auto rows_of_tile) {
          constexpr bool streamed = rows_of_tile <= kFewRows;
          if (tiles > 1 || !streamed)
            add_columns<false, rows_of_tile>(tile, w, a.weight_stride, depth, columns, to,
                                             kItemColumns);
          else
            add_columns<streamed, rows_of_tile>(tile, w, a.weight_stride, depth, columns, to,
                                            kItemColumns);
        };
        switch (some) {
          case 1: add(std::integral_constant<int, 1>{}); break;
          case 2: add(std::integral_constant<int, 2>{}); break;
          case 3: add(std::integral_constant<int, 3>{}); break;
          case 4: add(std::integral_constant<int, 4>{}); break;
          case 5: add(std::integral_constant<int, 5>{}); break;
          default: add(std::integral_constant<int, kTile>{});
        }
      }
    }
    for (int r = 0; r < rows; ++r) {
      bf16* to = out + (row + r) * a.out_stride + column;
      const float* from = sums + r * kItemColumns;
      int c = 0;
      for (; c + kLanes <= columns; c += kLanes) store(to + c, narrow_bf16(load<F32>(from + c)));
      for (; c < columns; ++c) to[c] = narrow_bf16(splat(from[c]))[0];
    }
  });
}

}  // namespace tightrun

extern "C" __attribute__((visibility("default"))) int tightrun_linear(
    const tightrun::LinearArgs* args) {
  tightrun::linear(*args);
  return 0;
}
