// The three ways a product is computed. Operands are packed into 32-bit words, so that one
// matrix product, one transposition and one memory layout serve them all.
#pragma once

#include "simd.h"

namespace tightrun {

using bf16 = uint16_t;

// Sums that lie in the order of their columns.
struct PlainSums {
  template <int Vectors>
  static void load_sums(const float* from, F32* sums) {
    for (int v = 0; v < Vectors; ++v) sums[v] = load<F32>(from + v * kLanes);
  }
  template <int Vectors>
  static void store_sums(const F32* sums, float* to) {
    for (int v = 0; v < Vectors; ++v) store(to + v * kLanes, sums[v]);
  }
};

// float32 stored, float32 multiplied: a word is one number.
struct Float32 : PlainSums {
  using Stored = float;
  static constexpr int kPerWord = 1;
  static constexpr bool kExact = true;

  static U32 load_words(const float* p) { return load<U32>(p); }
  static U32 load_words(const float* p, int count) { return load_part<U32>(p, 4 * count); }
  static U32 quads(const float* const* rows, int word) {
    return load_quads(reinterpret_cast<const char* const*>(rows), 4 * word);
  }
  static F32 dot(F32 sum, U32 a, U32 b) { return sum + (F32)a * (F32)b; }
  static F32 load_row(const float* p) { return load<F32>(p); }
  static F32 load_row(const float* p, int count) { return load_part<F32>(p, 4 * count); }
  static void store_row(float* p, F32 x) { store(p, x); }
  static void store_row(float* p, F32 x, int count) { std::memcpy(p, &x, 4 * count); }
};

// bfloat16 stored, widened to float32 when packed.
struct Bf16Widened : PlainSums {
  using Stored = bf16;
  static constexpr int kPerWord = 1;
  static constexpr bool kExact = false;

  static U32 load_words(const bf16* p) { return (U32)load_row(p); }
  static U32 load_words(const bf16* p, int count) { return (U32)load_row(p, count); }
  static U32 quads(const bf16* const* rows, int word) {
    U16 bits;
    for (int i = 0; i < kLanes / 4; ++i)
      std::memcpy(reinterpret_cast<char*>(&bits) + 8 * i, rows[4 * i] + word, 8);
    return (U32)widen_bf16(bits);
  }
  static F32 dot(F32 sum, U32 a, U32 b) { return sum + (F32)a * (F32)b; }
  static F32 load_row(const bf16* p) { return widen_bf16(load<U16>(p)); }
  static F32 load_row(const bf16* p, int count) { return widen_bf16(load_part<U16>(p, 2 * count)); }
  static void store_row(bf16* p, F32 x) { store(p, narrow_bf16(x)); }
  static void store_row(bf16* p, F32 x, int count) {
    const U16 bits = narrow_bf16(x);
    std::memcpy(p, &bits, 2 * count);
  }
};

#if TIGHTRUN_AVX512 && defined(__AVX512BF16__)
// bfloat16 stored, two neighbours of the summed dimension in a word, multiplied by dpbf16ps.
struct Bf16Pairs : Bf16Widened {
  static constexpr int kPerWord = 2;

  static U32 load_words(const bf16* p) { return load<U32>(p); }
  static U32 load_words(const bf16* p, int count) { return load_part<U32>(p, 4 * count); }
  static U32 quads(const bf16* const* rows, int word) {
    return load_quads(reinterpret_cast<const char* const*>(rows), 4 * word);
  }
  static F32 dot(F32 sum, U32 a, U32 b) {
    return (F32)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
  // Weights of 2 * kLanes keys as kLanes words.
  static U32 pair(F32 first, F32 second) {
    return (U32)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  }
  // Two rows of 2 * kLanes numbers, one above the other, as words of pairs; columns are in the order
  // that costs least: the halves of each 128 bits apart.
  static void interleave_lanes(U32 above, U32 below, U32& low, U32& high) {
    low = (U32)_mm512_unpacklo_epi16((__m512i)above, (__m512i)below);
    high = (U32)_mm512_unpackhi_epi16((__m512i)above, (__m512i)below);
  }
  // From that order to the order of columns, and back.
  static void lanes_to_columns(U32& low, U32& high) {
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    const __m512i left = _mm512_permutex2var_epi64((__m512i)low, first, (__m512i)high);
    high = (U32)_mm512_permutex2var_epi64((__m512i)low, second, (__m512i)high);
    low = (U32)left;
  }
  static void columns_to_lanes(U32& left, U32& right) {
    const __m512i first = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13);
    const __m512i second = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
    const __m512i low = _mm512_permutex2var_epi64((__m512i)left, first, (__m512i)right);
    right = (U32)_mm512_permutex2var_epi64((__m512i)left, second, (__m512i)right);
    left = (U32)low;
  }
  template <int Vectors>
  static void load_sums(const float* from, F32* sums) {
    for (int v = 0; v < Vectors; v += 2) {
      U32 a = load<U32>(from + v * kLanes), b = load<U32>(from + (v + 1) * kLanes);
      columns_to_lanes(a, b);
      sums[v] = (F32)a;
      sums[v + 1] = (F32)b;
    }
  }
  template <int Vectors>
  static void store_sums(const F32* sums, float* to) {
    for (int v = 0; v < Vectors; v += 2) {
      U32 a = (U32)sums[v], b = (U32)sums[v + 1];
      lanes_to_columns(a, b);
      store(to + v * kLanes, a);
      store(to + (v + 1) * kLanes, b);
    }
  }
};
using Bf16 = Bf16Pairs;
#else
using Bf16 = Bf16Widened;
#endif

}  // namespace tightrun
