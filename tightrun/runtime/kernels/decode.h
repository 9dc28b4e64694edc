// One query token of a sequence: K and V stream from memory once for all heads of the group, in
// registers from there on. Split over the keys as in Flash-Decoding (Dao et al. 2023).
#pragma once

#include "prefill.h"

namespace tightrun {

constexpr int kCachedKeys = 128;

// Addresses of the rows of a piece's keys, or values, filled up to a whole vector.
template <class T>
void rows_of(const Problem<T>& problem, const PagedSide<T>& side, const Piece& piece,
             const T** out) {
  side.rows(problem.table(piece.sequence), piece.kv_head, piece.key_begin, piece.key_end, 0,
            round_up(piece.key_end - piece.key_begin, kLanes), out);
}

// Scores of `Rows` heads against the kLanes keys at `keys`. Four words of a key lie side by side, so
// nothing is transposed: loads put the keys in place, and only the sums are added across.
template <class Math, int Rows>
inline void score_vector(const uint32_t* queries, const typename Math::Stored* const* keys,
                         const Packed<Math>& packed, Ahead<typename Math::Stored>& ahead,
                         float* scores) {
  constexpr int kRead = 4 * kLanes * Math::kPerWord * int{sizeof(typename Math::Stored)};
  constexpr int kLines = std::max(1, kRead / 64);  // as many as are read in a step
  F32 sum[Rows][4] = {};
  for (int word = 0; word < packed.key_words; word += 4) {
    ahead.fetch(kLines);
    U32 quad[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) quad[i] = Math::quads(keys + i, word);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const U32 query = splat_quad(queries + r * packed.key_stride + word);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sum[r][i] = Math::dot(sum[r][i], query, quad[i]);
    }
  }
  const auto add = [](F32 a, F32 b) { return a + b; };
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) store(scores + r * kDecodeKeys, join_quads(sum[r], add));
}

// Scores of `Rows` heads against `count` keys, a multiple of kLanes.
template <class Math, int Rows>
void score_keys(const uint32_t* queries, const typename Math::Stored* const* keys, int count,
                const Packed<Math>& packed, Ahead<typename Math::Stored>& ahead, float* scores) {
  for (int key = 0; key < count; key += kLanes) {
    score_vector<Math, std::min(Rows, 4)>(queries, keys + key, packed, ahead, scores + key);
    if constexpr (Rows > 4)
      score_vector<Math, Rows - 4>(queries + 4 * packed.key_stride, keys + key, packed, ahead,
                                   scores + 4 * kDecodeKeys + key);
  }
}

// Adds weights x values of `count` keys to the columns [column, column + Vectors * kLanes).
template <class Math, int Rows, int Vectors>
void add_values(const uint32_t* weights, const typename Math::Stored* const* keys, int count,
                int column, int width, Ahead<typename Math::Stored>& ahead, float* sums,
                int stride) {
  F32 sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) Math::template load_sums<Vectors>(sums + r * stride + column, sum[r]);
  const int words = width / Math::kPerWord;
  constexpr int kRead = Vectors * kLanes * Math::kPerWord * int{sizeof(typename Math::Stored)};
  constexpr int kLines = std::max(1, kRead / 64);  // as many as are read in a step
  for (int step = 0; step < count / Math::kPerWord; ++step) {
    ahead.fetch(kLines);
    U32 value[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; v += Math::kPerWord) {
      const int word = column / Math::kPerWord + v / Math::kPerWord * kLanes;
      const U32 above = row_words<Math>(keys[step * Math::kPerWord], word, words);
      if constexpr (Math::kPerWord == 2)
        Math::interleave_lanes(above, row_words<Math>(keys[step * 2 + 1], word, words), value[v],
                               value[v + 1]);
      else
        value[v] = above;
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const U32 weight = splat(weights[r * kDecodeKeys + step]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sum[r][v] = Math::dot(sum[r][v], weight, value[v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) Math::template store_sums<Vectors>(sum[r], sums + r * stride + column);
}

// The rows first_row ... first_row + Rows of the group. `next` is what this thread attends to next.
template <class Math, int Rows>
void attend_heads(const Problem<typename Math::Stored>& problem, const Piece& piece,
                  const Piece* next, int first_row, const Packed<Math>& packed,
                  Workspace<Math>& work) {
  constexpr int kVectors = kLanes < 16 ? 2 : Rows <= 3 ? 8 : Rows <= 6 ? 4 : 2;
  const int keys = piece.key_end - piece.key_begin;
  const int count = round_up(keys, kLanes);
  rows_of(problem, problem.v, piece, work.values_at);
  rows_of(problem, problem.k, piece, work.keys_at);
  Ahead<typename Math::Stored> values_ahead(work.values_at, keys, problem.v.width);
  score_keys<Math, Rows>(work.queries + first_row * packed.key_stride, work.keys_at, count, packed,
                         values_ahead, work.scores);
  Sums& sums = work.sums;
  int low[Rows] = {}, high[Rows];
  std::fill_n(high, Rows, keys);
  std::fill_n(sums.most + first_row, Rows, kMinusInfinity);
  std::fill_n(sums.weight + first_row, Rows, 0.0f);
  weigh_all<Math, Rows>({work.scores, kDecodeKeys, count, low, high}, problem.score,
                        work.states() + first_row, work.weights, kDecodeKeys);
  if (next) rows_of(problem, problem.k, *next, work.keys_at);
  Ahead<typename Math::Stored> keys_ahead(
      work.keys_at, next ? next->key_end - next->key_begin : 0, problem.k.width);
  float* values = sums.values + static_cast<int64_t>(first_row) * sums.stride;
  std::fill_n(values, Rows * sums.stride, 0.0f);
  for (int key = 0; key < count; key += kCachedKeys) {
    const int some = std::min(kCachedKeys, count - key);
    const uint32_t* weights = work.weights + key / Math::kPerWord;
    const auto add = [&](auto vectors, int column) {
      add_values<Math, Rows, decltype(vectors)::value>(weights, work.values_at + key, some, column,
                                                       problem.v.width, keys_ahead, values,
                                                       sums.stride);
    };
    int column = 0;
    for (; column + kVectors * kLanes <= sums.stride; column += kVectors * kLanes)
      add(std::integral_constant<int, kVectors>{}, column);
    for (; column < sums.stride; column += Math::kPerWord * kLanes)
      add(std::integral_constant<int, Math::kPerWord>{}, column);
  }
}

template <class Math>
void attend_decode(const Problem<typename Math::Stored>& problem, const Piece& piece,
                   const Piece* next, const Packed<Math>& packed, Workspace<Math>& work) {
  pack_queries(problem, piece, packed, problem.group, work.queries);
  using Attend = void (*)(const Problem<typename Math::Stored>&, const Piece&, const Piece*, int,
                          const Packed<Math>&, Workspace<Math>&);
  constexpr Attend kAttend[kDecodeRows] = {
      attend_heads<Math, 1>, attend_heads<Math, 2>, attend_heads<Math, 3>, attend_heads<Math, 4>,
      attend_heads<Math, 5>, attend_heads<Math, 6>, attend_heads<Math, 7>, attend_heads<Math, 8>};
  for (int row = 0; row < problem.group; row += kDecodeRows)
    kAttend[std::min(kDecodeRows, problem.group - row) - 1](problem, piece, next, row, packed, work);
}

}  // namespace tightrun
