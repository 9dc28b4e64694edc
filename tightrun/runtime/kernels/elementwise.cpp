// The small steps between the matrix products, each in one pass over memory, rounding where
// Hugging Face's modules round.

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "team.h"
#include "words.h"

namespace tightrun {

// Mirrored field by field in abi.py; strides count elements.
struct RowsArgs {
  OpenMp omp;
  const void *x, *y;
  void* out;
  int64_t x_stride, y_stride, rows, width;
  int32_t threads, is_bf16;
  float eps;
};

struct RotateArgs {
  OpenMp omp;
  const void *x, *cos, *sin;
  void* out;
  int64_t x_head_stride, x_token_stride, cos_stride, sin_stride, tokens, heads, width, rotated;
  int32_t threads, is_bf16;
};

constexpr int64_t kItemNumbers = 16384;  // below this a second thread costs more than it brings

// The vectors of a row, the last one perhaps in part: each(column, count).
template <class Each>
inline void for_vectors(int64_t width, Each&& each) {
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) each(c, kLanes);
  if (c < width) each(c, static_cast<int>(width - c));
}

template <class Math>
inline F32 load_some(const typename Math::Stored* p, int count) {
  return count == kLanes ? Math::load_row(p) : Math::load_row(p, count);
}

template <class Math>
inline void store_some(typename Math::Stored* p, F32 x, int count) {
  if (count == kLanes)
    Math::store_row(p, x);
  else
    Math::store_row(p, x, count);
}

// What is left of a number once it has been stored.
template <class Math>
inline F32 rounded(F32 x) {
  if constexpr (std::is_same_v<Math, Float32>)
    return x;
  else
    return widen_bf16(narrow_bf16(x));
}

// weight * round(x / rms(x))
template <class Math>
void rms_norm_row(const RowsArgs& a, int64_t row) {
  using T = typename Math::Stored;
  const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
  const T* weight = static_cast<const T*>(a.y);
  T* out = static_cast<T*>(a.out) + row * a.width;
  F32 squares[4] = {};
  int64_t c = 0;
  for (; c + 4 * kLanes <= a.width; c += 4 * kLanes)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const F32 v = Math::load_row(x + c + i * kLanes);
      squares[i] += v * v;
    }
  for_vectors(a.width - c, [&](int64_t rest, int count) {
    const F32 v = load_some<Math>(x + c + rest, count);
    squares[0] += v * v;
  });
  const F32 lanes = squares[0] + squares[1] + squares[2] + squares[3];
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  const float factor = 1.0f / std::sqrt(sum / static_cast<float>(a.width) + a.eps);
  for_vectors(a.width, [&](int64_t c, int count) {
    const F32 normal = rounded<Math>(load_some<Math>(x + c, count) * factor);
    store_some<Math>(out + c, normal * load_some<Math>(weight + c, count), count);
  });
}

// round(silu(gate)) * up
template <class Math>
void silu_mul_row(const RowsArgs& a, int64_t row) {
  using T = typename Math::Stored;
  const T* gate = static_cast<const T*>(a.x) + row * a.x_stride;
  const T* up = static_cast<const T*>(a.y) + row * a.y_stride;
  T* out = static_cast<T*>(a.out) + row * a.width;
  for_vectors(a.width, [&](int64_t c, int count) {
    const F32 x = load_some<Math>(gate + c, count);
    const F32 silu = x / (exp2<true>(at_most(splat(127.0f), x * -kLog2e)) + 1.0f);
    store_some<Math>(out + c, rounded<Math>(silu) * load_some<Math>(up + c, count), count);
  });
}

// x * cos + rotate_half(x) * sin on the first `rotated` numbers of every head; the rest is copied.
template <class Math>
void rotate_token(const RotateArgs& a, int64_t token) {
  using T = typename Math::Stored;
  const T* cos = static_cast<const T*>(a.cos) + token * a.cos_stride;
  const T* sin = static_cast<const T*>(a.sin) + token * a.sin_stride;
  const int64_t half = a.rotated / 2;
  for (int64_t head = 0; head < a.heads; ++head) {
    const T* x = static_cast<const T*>(a.x) + token * a.x_token_stride + head * a.x_head_stride;
    T* out = static_cast<T*>(a.out) + (token * a.heads + head) * a.width;
    for_vectors(half, [&](int64_t c, int count) {
      const auto at = [&](const T* p, int64_t i) { return load_some<Math>(p + i, count); };
      const F32 left = at(x, c), right = at(x, half + c);
      const F32 turned_left = rounded<Math>(left * at(cos, c)) + rounded<Math>(-right * at(sin, c));
      const F32 turned_right =
          rounded<Math>(right * at(cos, half + c)) + rounded<Math>(left * at(sin, half + c));
      store_some<Math>(out + c, turned_left, count);
      store_some<Math>(out + half + c, turned_right, count);
    });
    std::memcpy(out + a.rotated, x + a.rotated, sizeof(T) * (a.width - a.rotated));
  }
}

template <class Args>
void for_rows(const Args& args, int64_t rows, int64_t row_numbers,
              void (*one)(const Args&, int64_t)) {
  const int64_t some = std::max<int64_t>(1, kItemNumbers / std::max<int64_t>(1, row_numbers));
  share_out(args.omp, (rows + some - 1) / some, args.threads, [&](int64_t item, int64_t, int) {
    for (int64_t row = item * some; row < std::min(rows, (item + 1) * some); ++row) one(args, row);
  });
}

}  // namespace tightrun

extern "C" {

__attribute__((visibility("default"))) int tightrun_rms_norm(const tightrun::RowsArgs* args) {
  using namespace tightrun;
  for_rows(*args, args->rows, args->width,
           args->is_bf16 ? rms_norm_row<Bf16Widened> : rms_norm_row<Float32>);
  return 0;
}

__attribute__((visibility("default"))) int tightrun_silu_mul(const tightrun::RowsArgs* args) {
  using namespace tightrun;
  for_rows(*args, args->rows, args->width,
           args->is_bf16 ? silu_mul_row<Bf16Widened> : silu_mul_row<Float32>);
  return 0;
}

__attribute__((visibility("default"))) int tightrun_rotate(const tightrun::RotateArgs* args) {
  using namespace tightrun;
  for_rows(*args, args->tokens, args->heads * args->width,
           args->is_bf16 ? rotate_token<Bf16Widened> : rotate_token<Float32>);
  return 0;
}
}
