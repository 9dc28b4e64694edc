// Softmax that runs on: scores to weights relative to the largest score so far, up to four rows at once.
#pragma once

#include <algorithm>

#include "problem.h"

namespace tightrun {

// Rows next to each other: the scores of each, and the columns [low, high) it sees.
struct ScoreRows {
  float* scores;
  int stride;
  int columns;  // whole vectors
  const int *low, *high;
};

// Per row: the largest score so far, the sum of weights relative to it, and what the sums so far were
// multiplied with when it last grew.
struct RowStates {
  float *most, *weight, *factor;

  RowStates operator+(int rows) const { return {most + rows, weight + rows, factor + rows}; }
};

// Overwrites scores outside the columns [low, high), which are not seen.
inline void hide_unseen(float* scores, int columns, int low, int high) {
  const auto hide = [&](int c) {
    const I32 column = lane_numbers() + c;
    const F32 x = load<F32>(scores + c);
    store(scores + c, ((column >= low) & (column < high)) ? x : splat(kMinusInfinity));
  };
  for (int c = 0; c < low && c < columns; c += kLanes) hide(c);
  for (int c = std::max(0, high) / kLanes * kLanes; c < columns; c += kLanes) hide(c);
}

// `Rows` numbers, repeated in every 128 bits.
template <int Rows>
inline F32 load_rows(const float* from) {
  float numbers[4] = {};
  std::memcpy(numbers, from, 4 * Rows);
  return (F32)splat_quad(reinterpret_cast<const uint32_t*>(numbers));
}

// Joins the scores of `Rows` rows, 1 to 4, to their states and writes their weights.
template <class Math, int Rows>
inline void weigh_rows(const ScoreRows& rows, const ScoreScale& scale, const RowStates& states,
                       uint32_t* weights, int weight_stride) {
  const auto scores = [&](int r, int c) { return rows.scores + r * rows.stride + c; };
  if (scale.capped)
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < rows.columns; c += kLanes)
        store(scores(r, c), scale.cap(load<F32>(scores(r, c))));
  for (int r = 0; r < Rows; ++r)
    hide_unseen(scores(r, 0), rows.columns, rows.low[r], rows.high[r]);

  F32 top[4];
  for (F32& t : top) t = splat(kMinusInfinity);
  for (int c = 0; c < rows.columns; c += kLanes)
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) top[r] = max_of(top[r], load<F32>(scores(r, c)));
  const F32 before = load_rows<Rows>(states.most);
  const F32 most = max_of(before, join_rows(top, max_of) * scale.factor);
  const F32 base = most == kMinusInfinity ? F32{} : most;
  const F32 factor = exp2<true>(before - base);
  float bases[kLanes];
  store(bases, base);

  F32 sum[4] = {};
  const auto weigh = [&](int r, int c) {
    const F32 x = exp2<Math::kExact>(load<F32>(scores(r, c)) * scale.factor - bases[r]);
    sum[r] += x;
    return x;
  };
  if constexpr (Math::kPerWord == 1) {
    for (int c = 0; c < rows.columns; c += kLanes)
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) store(weights + r * weight_stride + c, weigh(r, c));
  } else {
    int c = 0;
    for (; c + kLanes < rows.columns; c += 2 * kLanes)
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        const F32 first = weigh(r, c), second = weigh(r, c + kLanes);
        store(weights + r * weight_stride + c / 2, Math::pair(first, second));
      }
    if (c < rows.columns)
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r)
        store(weights + r * weight_stride + c / 2, Math::pair(weigh(r, c), F32{}));
  }
  const auto add = [](F32 a, F32 b) { return a + b; };
  const F32 weight = load_rows<Rows>(states.weight) * factor + join_rows(sum, add);
  std::memcpy(states.most, &most, 4 * Rows);
  std::memcpy(states.weight, &weight, 4 * Rows);
  std::memcpy(states.factor, &factor, 4 * Rows);
}

// The same for any number of rows.
template <class Math, int Rows>
inline void weigh_all(const ScoreRows& rows, const ScoreScale& scale, const RowStates& states,
                      uint32_t* weights, int weight_stride) {
  weigh_rows<Math, std::min(Rows, 4)>(rows, scale, states, weights, weight_stride);
  if constexpr (Rows > 4) {
    const ScoreRows rest{rows.scores + 4 * rows.stride, rows.stride, rows.columns, rows.low + 4,
                         rows.high + 4};
    weigh_all<Math, Rows - 4>(rest, scale, states + 4, weights + 4 * weight_stride, weight_stride);
  }
}

}  // namespace tightrun
