// Tiled attention (FlashAttention, Dao et al. 2022): a tile of query rows against one tile of packed keys
// after another, with a running maximum and sum per row.
#pragma once

#include "finish.h"
#include "gemm.h"

namespace tightrun {

// Decode rows are cut at multiples of this many keys, whatever else is in the batch and however many
// threads there are, so that a sequence's output depends on neither.
constexpr int kDecodeKeys = 512;
constexpr int kDecodeRows = 8;  // heads that share a pass over the keys
constexpr int kKeyTile = 64;
constexpr int kQueryRows = 192;  // rows of a piece aimed at: packing a key tile is then 2 % of the work

// Sizes of the packed operands of a layer, in words and rounded up to whole vectors.
template <class Math>
struct Packed {
  int key_words;    // of a query or key row
  int key_stride;
  int value_stride;  // columns of the sums

  Packed(int key_width, int value_width)
      : key_words(key_width / Math::kPerWord),
        key_stride(round_up(key_words, kLanes)),
        value_stride(round_up(value_width, kLanes * Math::kPerWord)) {}
};

// Scores a thread holds at a time: of a decode piece, or of a tile of query rows and a tile of keys.
constexpr int kScores = std::max(kDecodeRows * kDecodeKeys, kTileRows * kKeyTile);

// What one thread works in.
template <class Math>
struct Workspace {
  using T = typename Math::Stored;
  uint32_t *queries, *keys, *values, *weights;
  float *scores;
  Sums sums;
  const T *keys_at[kDecodeKeys], *values_at[kDecodeKeys];  // addresses of rows

  static int64_t words(const Packed<Math>& packed, int rows) {
    return static_cast<int64_t>(rows) * (packed.key_stride + packed.value_stride + 2) +
           kKeyTile * (packed.key_stride + packed.value_stride / Math::kPerWord) +
           2 * kScores + 8 * kLanes;
  }

  Workspace(uint32_t* memory, const Packed<Math>& packed, int rows) {
    auto take = [&](int64_t count) {
      uint32_t* taken = memory;
      memory += (count + kLanes - 1) / kLanes * kLanes;
      return taken;
    };
    keys = take(static_cast<int64_t>(kKeyTile) * packed.key_stride);
    values = take(static_cast<int64_t>(kKeyTile / Math::kPerWord) * packed.value_stride);
    weights = take(kScores);
    scores = reinterpret_cast<float*>(take(kScores));
    queries = take(static_cast<int64_t>(rows) * packed.key_stride);
    sums.values = reinterpret_cast<float*>(take(static_cast<int64_t>(rows) * packed.value_stride));
    sums.stride = packed.value_stride;
    sums.most = reinterpret_cast<float*>(take(rows));
    sums.weight = reinterpret_cast<float*>(take(rows));
  }
};

// A row of stored numbers as words, the last vector filled up with zeros.
template <class Math>
inline U32 row_words(const typename Math::Stored* row, int word, int words) {
  const auto* from = row + word * Math::kPerWord;
  return word + kLanes <= words ? Math::load_words(from) : Math::load_words(from, words - word);
}

template <class Math>
void pack_queries(const Problem<typename Math::Stored>& problem, const Piece& piece,
                  const Packed<Math>& packed, int padded_rows, uint32_t* out) {
  const int first = problem.q_start[piece.sequence] + piece.q_begin;
  const int rows = piece.q_count * problem.group;
  for (int row = 0; row < padded_rows; ++row) {
    const int real = std::min(row, rows - 1);
    const auto* from = problem.query(first + real / problem.group,
                                     piece.kv_head * problem.group + real % problem.group);
    for (int w = 0; w < packed.key_stride; w += kLanes, out += kLanes)
      store(out, row_words<Math>(from, w, packed.key_words));
  }
}

// Keys as [key_words][kKeyTile]: the transposed right side of queries x keys.
template <class Math>
void pack_keys(const typename Math::Stored* const* rows, int count, const Packed<Math>& packed,
               uint32_t* out) {
  for (int key = 0; key < count; key += kLanes)
    for (int w = 0; w < packed.key_words; w += kLanes) {
      U32 square[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        square[i] = row_words<Math>(rows[key + i], w, packed.key_words);
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(out + (w + i) * kKeyTile + key, square[i]);
    }
}

// Values as [kKeyTile / kPerWord][value_stride]: the right side of weights x values.
template <class Math>
void pack_values(const typename Math::Stored* const* rows, int count, int width,
                 const Packed<Math>& packed, uint32_t* out) {
  const int words = width / Math::kPerWord;
  for (int key = 0; key < count; key += Math::kPerWord, out += packed.value_stride)
    for (int w = 0; w < words; w += kLanes) {
      const U32 above = row_words<Math>(rows[key], w, words);
      if constexpr (Math::kPerWord == 2) {
        U32 left, right;
        Math::interleave_lanes(above, row_words<Math>(rows[key + 1], w, words), left, right);
        Math::lanes_to_columns(left, right);
        store(out + 2 * w, left);
        store(out + 2 * w + kLanes, right);
      } else {
        store(out + w, above);
      }
    }
}

// Scores of one row to weights relative to the row's new maximum. Columns [low, high) are seen.
// Returns the sum of the weights; `most` is the maximum so far and becomes the new one.
template <class Math>
inline float weigh_row(float* scores, int columns, int low, int high, const ScoreScale& scale,
                       float& most, uint32_t* weights) {
  const I32 lanes = lane_numbers();
  F32 top = splat(kMinusInfinity);
  for (int c = 0; c < columns; c += kLanes) {
    F32 x = scale(load<F32>(scores + c));
    if (c < low || c + kLanes > high) {
      const I32 column = lanes + c;
      x = (column >= low) & (column < high) ? x : splat(kMinusInfinity);
    }
    top = max_of(top, x);
    store(scores + c, x);
  }
  most = std::max(most, max_lanes(top));
  const bool none = most == kMinusInfinity;
  F32 sum{};
  F32 pending{};
  for (int c = 0; c < columns; c += kLanes) {
    const F32 x = load<F32>(scores + c);
    F32 weight = none ? F32{} : exp2<Math::kExact>(x - most);
    if (c < low || c + kLanes > high) weight = x == kMinusInfinity ? F32{} : weight;
    sum += weight;
    if constexpr (Math::kPerWord == 1) {
      store(weights + c, weight);
    } else {
      if (c / kLanes % 2) store(weights + (c - kLanes) / 2, Math::pair(pending, weight));
      pending = weight;
      if (c + kLanes == columns && c / kLanes % 2 == 0)
        store(weights + c / 2, Math::pair(weight, F32{}));
    }
  }
  return sum_lanes(sum);
}

// Attends the rows of a piece over its keys; the sums are left in the workspace.
template <class Math, int Rows>
void attend_tiles(const Problem<typename Math::Stored>& problem, const Piece& piece,
                  const Packed<Math>& packed, Workspace<Math>& work) {
  const int rows = piece.q_count * problem.group;
  const int padded = round_up(rows, Rows);
  const int first_position = problem.context_len[piece.sequence] + piece.q_begin;
  const auto position = [&](int row) {
    return first_position + std::min(row, rows - 1) / problem.group;
  };
  const int32_t* table = problem.table(piece.sequence);
  Sums& sums = work.sums;
  pack_queries(problem, piece, packed, padded, work.queries);
  std::fill_n(sums.most, padded, kMinusInfinity);
  std::fill_n(sums.weight, padded, 0.0f);
  std::fill_n(sums.values, static_cast<int64_t>(padded) * sums.stride, 0.0f);

  for (int tile = piece.key_begin / kKeyTile * kKeyTile; tile < piece.key_end; tile += kKeyTile) {
    const int first = std::max(tile, piece.key_begin);
    const int last = std::min(tile + kKeyTile, piece.key_end);
    const int count = round_up(last - tile, kLanes);
    problem.k.rows(table, piece.kv_head, first, last, first - tile, count, work.keys_at);
    pack_keys<Math>(work.keys_at, count, packed, work.keys);
    problem.v.rows(table, piece.kv_head, first, last, first - tile, count, work.values_at);
    pack_values<Math>(work.values_at, count, problem.v.width, packed, work.values);

    for (int row = 0; row < padded; row += Rows) {
      const int low = std::max(problem.first_key(position(row)), first) - tile;
      const int high = std::min(position(row + Rows - 1) + 1, last) - tile;
      if (high <= low) continue;
      const int begin = low / kLanes * kLanes;
      const int columns = round_up(high, kLanes) - begin;
      product<Math, Rows>(work.queries + static_cast<int64_t>(row) * packed.key_stride,
                          packed.key_stride, work.keys + begin, kKeyTile, work.scores, kKeyTile,
                          packed.key_words, columns / kLanes, nullptr);
      float factor[Rows];
      for (int r = 0; r < Rows; ++r) {
        const int at = position(row + r);
        const float before = sums.most[row + r];
        const float weight = weigh_row<Math>(
            work.scores + r * kKeyTile, columns,
            std::max(problem.first_key(at), first) - tile - begin,
            std::min(at + 1, last) - tile - begin, problem.score, sums.most[row + r],
            work.weights + r * kKeyTile);
        factor[r] = before == sums.most[row + r] ? 1.0f : std::exp2(before - sums.most[row + r]);
        sums.weight[row + r] = sums.weight[row + r] * factor[r] + weight;
      }
      product<Math, Rows>(work.weights, kKeyTile,
                          work.values + begin / Math::kPerWord * packed.value_stride,
                          packed.value_stride,
                          sums.values + static_cast<int64_t>(row) * sums.stride, sums.stride,
                          columns / Math::kPerWord, packed.value_stride / kLanes, factor);
    }
  }
}

template <class Math>
void attend_prefill(const Problem<typename Math::Stored>& problem, const Piece& piece,
                  const Packed<Math>& packed, Workspace<Math>& work) {
  const int rows = piece.q_count * problem.group;
  if (rows == 1)
    attend_tiles<Math, 1>(problem, piece, packed, work);
  else if (rows == 2)
    attend_tiles<Math, 2>(problem, piece, packed, work);
  else if (rows <= 4)
    attend_tiles<Math, 4>(problem, piece, packed, work);
  else
    attend_tiles<Math, kTileRows>(problem, piece, packed, work);
}

}  // namespace tightrun
