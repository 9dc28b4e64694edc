// One vector of 32-bit lanes, as wide as the compiler's target allows, and what attention does with it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace tightrun {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define TIGHTRUN_AVX512 1
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using F32 = float __attribute__((vector_size(4 * kLanes)));
using I32 = int32_t __attribute__((vector_size(4 * kLanes)));
using U32 = uint32_t __attribute__((vector_size(4 * kLanes)));
using U16 = uint16_t __attribute__((vector_size(2 * kLanes)));

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kMinusInfinity = -__builtin_inff();

constexpr int round_up(int value, int step) { return (value + step - 1) / step * step; }

template <class V>
inline V load(const void* address) {
  V value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

// The first `bytes` of a vector; the rest is zero and is not read.
template <class V>
inline V load_part(const void* address, int bytes) {
  V value{};
  std::memcpy(&value, address, bytes);
  return value;
}

template <class V>
inline void store(void* address, V value) {
  std::memcpy(address, &value, sizeof value);
}

inline F32 splat(float value) { return F32{} + value; }
inline U32 splat(uint32_t word) { return U32{} + word; }

inline I32 lane_numbers() {
  I32 lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes;
}

// A NaN in `b` is ignored by max_of, one in `x` is kept by at_least and at_most: the maximum of a row
// only has to be finite, its weights have to show the NaN.
#if TIGHTRUN_AVX512
inline F32 max_of(F32 a, F32 b) { return (F32)_mm512_max_ps((__m512)b, (__m512)a); }
inline F32 at_least(F32 floor, F32 x) { return (F32)_mm512_max_ps((__m512)floor, (__m512)x); }
inline F32 at_most(F32 ceiling, F32 x) { return (F32)_mm512_min_ps((__m512)ceiling, (__m512)x); }
#else
inline F32 at_most(F32 ceiling, F32 x) { return x > ceiling ? ceiling : x; }
inline F32 max_of(F32 a, F32 b) { return b > a ? b : a; }
#endif

// Swaps the halves of `a` and `b` that are Step lanes apart: one step of a transposition.
template <int Step, int... Lane>
inline void butterfly(U32& a, U32& b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  const U32 low = __builtin_shufflevector(a, b, ((Lane & Step) ? kLanes + Lane - Step : Lane)...);
  const U32 high = __builtin_shufflevector(a, b, ((Lane & Step) ? kLanes + Lane : Lane + Step)...);
#else
  const U32 low = __builtin_shuffle(a, b, I32{((Lane & Step) ? kLanes + Lane - Step : Lane)...});
  const U32 high = __builtin_shuffle(a, b, I32{((Lane & Step) ? kLanes + Lane : Lane + Step)...});
#endif
  a = low;
  b = high;
}

template <int Step>
inline void transpose_steps(U32* rows) {
  if constexpr (Step < kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      if (!(i & Step)) butterfly<Step>(rows[i], rows[i + Step], std::make_integer_sequence<int, kLanes>{});
    transpose_steps<2 * Step>(rows);
  }
}

// rows[i] lane j becomes rows[j] lane i.
inline void transpose(U32 (&rows)[kLanes]) { transpose_steps<1>(rows); }

// Picks lanes of two vectors, numbered through, by the same pattern in every 128 bits.
template <int... Pick, int... Lane>
inline F32 pick_lanes(F32 a, F32 b, std::integer_sequence<int, Pick...>,
                      std::integer_sequence<int, Lane...>) {
  constexpr int kPick[] = {Pick...};  // 0 ... 3 of a, 4 ... 7 of b
#if defined(__clang__)
  return __builtin_shufflevector(
      a, b, (kPick[Lane % 4] % 4 + Lane / 4 * 4 + kPick[Lane % 4] / 4 * kLanes)...);
#else
  return __builtin_shuffle(
      a, b, I32{(kPick[Lane % 4] % 4 + Lane / 4 * 4 + kPick[Lane % 4] / 4 * kLanes)...});
#endif
}
template <int... Pick>
inline F32 pick(F32 a, F32 b) {
  return pick_lanes(a, b, std::integer_sequence<int, Pick...>{},
                    std::make_integer_sequence<int, kLanes>{});
}

// Lane 4 i + j of the result is rows[j] joined across its four lanes from 4 i on.
template <class Join>
inline F32 join_quads(const F32 (&rows)[4], Join&& join) {
  const F32 low = join(pick<0, 4, 1, 5>(rows[0], rows[1]), pick<2, 6, 3, 7>(rows[0], rows[1]));
  const F32 high = join(pick<0, 4, 1, 5>(rows[2], rows[3]), pick<2, 6, 3, 7>(rows[2], rows[3]));
  return join(pick<0, 1, 4, 5>(low, high), pick<2, 3, 6, 7>(low, high));
}

// Four words of each of kLanes / 4 rows, four rows apart.
inline U32 load_quads(const char* const* rows, int64_t offset) {
#if TIGHTRUN_AVX512
  const auto quad = [&](int row) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[row] + offset));
  };
  __m512i x = _mm512_castsi128_si512(quad(0));
  x = _mm512_mask_broadcast_i32x4(x, 0x00f0, quad(4));
  x = _mm512_mask_broadcast_i32x4(x, 0x0f00, quad(8));
  return (U32)_mm512_mask_broadcast_i32x4(x, 0xf000, quad(12));
#else
  U32 x;
  for (int i = 0; i < kLanes / 4; ++i)
    std::memcpy(reinterpret_cast<char*>(&x) + 16 * i, rows[4 * i] + offset, 16);
  return x;
#endif
}

// The same four words in every 128 bits.
inline U32 splat_quad(const uint32_t* words) {
#if TIGHTRUN_AVX512
  return (U32)_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
#else
  U32 x;
  for (int i = 0; i < kLanes / 4; ++i) std::memcpy(reinterpret_cast<char*>(&x) + 16 * i, words, 16);
  return x;
#endif
}

template <int Step, int... Lane>
inline F32 rotate_lanes(F32 x, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(x, x, ((Lane + Step) % kLanes)...);
#else
  return __builtin_shuffle(x, I32{((Lane + Step) % kLanes)...});
#endif
}
template <int Step>
inline F32 rotate(F32 x) {
  return rotate_lanes<Step>(x, std::make_integer_sequence<int, kLanes>{});
}

// Lane j of every 128 bits is rows[j] joined across its lanes, by addition or by maximum.
template <class Join>
inline F32 join_rows(const F32 (&rows)[4], Join&& join) {
  F32 x = join_quads(rows, join);
  if constexpr (kLanes >= 16) x = join(x, rotate<8>(x));
  if constexpr (kLanes >= 8) x = join(x, rotate<4>(x));
  return x;
}

// 2^x for x <= 127 by a polynomial on [-1/2, 1/2]; NaN stays NaN, 0 below the smallest normal number.
// Relative error: 2e-9 before rounding when `exact` (and 2^0 is 1), else 8e-5: bfloat16 rounds by 4e-3.
template <bool exact>
inline F32 exp2(F32 x) {
#if TIGHTRUN_AVX512
  x = at_least(splat(-200.0f), x);
  const F32 whole = (F32)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#else
  const F32 shifter = splat(12582912.0f);  // 1.5 * 2^23: the sum's low bits are the nearest integer
  const F32 shifted = x + shifter;
  const F32 whole = shifted - shifter;
#endif
  const F32 f = x - whole;
  F32 y;
  if constexpr (exact) {
    y = splat(0.00015345812f) * f + 0.0013399931f;
    y = y * f + 0.009618489f;
    y = y * f + 0.05550329f;
    y = y * f + 0.24022647f;
    y = y * f + 0.69314721f;
    y = y * f + 1.0f;
  } else {
    y = splat(0.055171669f) * f + 0.24261113f;
    y = y * f + 0.69326099f;
    y = y * f + 0.99992807f;
  }
#if TIGHTRUN_AVX512
  return (F32)_mm512_scalef_ps((__m512)y, (__m512)whole);
#else
  return x < -126.0f ? F32{} : (F32)((I32)y + ((I32)shifted << 23));
#endif
}

// tanh(x) as 1 - 2 / (e^2x + 1), mirrored so that the exponent is never positive.
inline F32 tanh(F32 x) {
  const F32 size = x < 0.0f ? -x : x;
  const F32 e = exp2<true>(size * (-2.0f * kLog2e));
  const F32 y = (1.0f - e) / (1.0f + e);
  return x < 0.0f ? -y : y;
}

inline F32 widen_bf16(U16 bits) { return (F32)(__builtin_convertvector(bits, U32) << 16); }

// Rounds to nearest even; a NaN stays one.
inline U32 bf16_bits(F32 x) {
  const U32 bits = (U32)x;
  const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return x == x ? rounded : (U32{} + 0x7fc0u);
}

inline U16 narrow_bf16(F32 x) {
#if TIGHTRUN_AVX512 && defined(__AVX512BF16__)
  return (U16)_mm512_cvtneps_pbh((__m512)x);
#else
  return __builtin_convertvector(bf16_bits(x), U16);
#endif
}

}  // namespace tightrun
