// From weighted sums to output rows: sinks, division by the sum of weights, joining of split keys.
#pragma once

#include <algorithm>

#include "problem.h"

namespace tightrun {

// Rows of one piece: sums of weighted values [rows][stride], and per row the maximum score and the
// sum of weights relative to it, in powers of two.
struct Sums {
  float* values;
  int stride;
  float* most;
  float* weight;
};

// Writes one finished row.
template <class Math>
void finish_row(const Problem<typename Math::Stored>& problem, int token, int head,
                const float* values, float most, float weight) {
  float factor = 1.0f;
  if (problem.sinks) {
    const float sink = problem.sinks[head] * kLog2e;
    const float top = std::max(most, sink);
    factor = std::exp2(most - top);
    weight = weight * factor + std::exp2(sink - top);
  }
  factor /= weight;
  auto* out = problem.output(token, head);
  const int width = problem.v.width;
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) Math::store_row(out + i, load<F32>(values + i) * factor);
  if (i < width) Math::store_row(out + i, load<F32>(values + i) * factor, width - i);
}

template <class Math>
void finish_rows(const Problem<typename Math::Stored>& problem, const Piece& piece,
                 const Sums& sums) {
  const int first = problem.q_start[piece.sequence] + piece.q_begin;
  for (int row = 0; row < piece.q_count * problem.group; ++row)
    finish_row<Math>(problem, first + row / problem.group,
                     piece.kv_head * problem.group + row % problem.group,
                     sums.values + static_cast<int64_t>(row) * sums.stride, sums.most[row],
                     sums.weight[row]);
}

// Joins the sums part(0) ... part(count - 1) over the same rows into the first, in this order.
template <class Part>
void join_parts(Part&& part, int count, int rows) {
  const Sums into = part(0);
  for (int row = 0; row < rows; ++row) {
    float most = kMinusInfinity;
    for (int i = 0; i < count; ++i) most = std::max(most, part(i).most[row]);
    float weight = 0;
    for (int i = 0; i < count; ++i) {
      const float factor = std::exp2(part(i).most[row] - most);
      const int64_t at = static_cast<int64_t>(row) * into.stride;
      weight += factor * part(i).weight[row];
      for (int c = 0; c < into.stride; c += kLanes) {
        const F32 more = load<F32>(part(i).values + at + c) * factor;
        store(into.values + at + c, i == 0 ? more : more + load<F32>(into.values + at + c));
      }
    }
    into.most[row] = most;
    into.weight[row] = weight;
  }
}

}  // namespace tightrun
