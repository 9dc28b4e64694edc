// Cuts a ragged batch into pieces of like size, longest first.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "decode.h"

namespace tightrun {

constexpr int kPiecesPerThread = 4;
constexpr int kLeastSplitKeys = 1024;

// Keys of the same rows shared between pieces: their sums, per key head `parts` slots of `rows`.
struct Split {
  int first_piece, parts, rows;
  int64_t first_word;  // into the memory for sums, of key head 0
};

struct Schedule {
  std::vector<Piece> pieces;  // in order of cost, each to be done for every key head
  std::vector<Split> splits;
  int64_t split_words = 0;
};

enum class Fault : int { none = 0, rows = 1, blocks = 2, memory = 3 };

// Are the rows within q and the blocks within the cache?
template <class T>
Fault check(const Problem<T>& problem, int blocks, int table_width, int block_shift) {
  for (int s = 0; s < problem.sequences; ++s) {
    const int length = problem.q_len[s], context = problem.context_len[s];
    if (length == 0) continue;
    if (length < 0 || context < 0 || problem.q_start[s] < 0 ||
        problem.q_start[s] > problem.tokens - length)
      return Fault::rows;
    const int first = problem.first_key(context) >> block_shift;
    const int last = (context + length - 1) >> block_shift;
    if (last >= table_width) return Fault::blocks;
    for (int b = first; b <= last; ++b)
      if (problem.table(s)[b] < 0 || problem.table(s)[b] >= blocks) return Fault::blocks;
  }
  return Fault::none;
}

// Cuts the keys of `piece` into parts of at most `keys`, at multiples of it.
inline void add_split(Schedule& plan, Piece piece, int keys, int rows, int64_t row_words,
                      int kv_heads) {
  const int first = piece.key_begin / keys, last = (piece.key_end - 1) / keys;
  if (first == last) {
    plan.pieces.push_back(piece);
    return;
  }
  const int parts = last - first + 1;
  const int key_begin = piece.key_begin, key_end = piece.key_end;
  piece.split = static_cast<int>(plan.splits.size());
  plan.splits.push_back({static_cast<int>(plan.pieces.size()), parts, rows, plan.split_words});
  plan.split_words += row_words * rows * parts * kv_heads;
  for (piece.part = 0; piece.part < parts; ++piece.part) {
    piece.key_begin = std::max(key_begin, (first + piece.part) * keys);
    piece.key_end = std::min(key_end, (first + piece.part + 1) * keys);
    plan.pieces.push_back(piece);
  }
}

template <class T>
Schedule cut(const Problem<T>& problem, int64_t row_words, int threads) {
  const int tile = std::max(1, kQueryRows / problem.group);
  int64_t prefill_pieces = 0;
  for (int s = 0; s < problem.sequences; ++s)
    if (problem.q_len[s] > 1) prefill_pieces += (problem.q_len[s] + tile - 1) / tile;
  prefill_pieces *= problem.kv_heads;
  const int64_t wanted = threads > 1 ? static_cast<int64_t>(threads) * kPiecesPerThread : 1;

  Schedule plan;
  for (int s = 0; s < problem.sequences; ++s) {
    const int context = problem.context_len[s];
    for (int begin = 0; begin < problem.q_len[s]; begin += tile) {
      const int count = std::min(tile, problem.q_len[s] - begin);
      const Piece piece{s, 0, begin, count, problem.first_key(context + begin),
                        context + begin + count, -1, 0};
      const int span = piece.key_end - piece.key_begin;
      int keys = kDecodeKeys;
      if (problem.q_len[s] > 1) {
        const int parts = static_cast<int>((wanted + prefill_pieces - 1) / prefill_pieces);
        keys = std::max(kLeastSplitKeys, round_up((span + parts - 1) / parts, kKeyTile));
        if (parts == 1) keys = round_up(piece.key_end, kKeyTile);
      }
      add_split(plan, piece, keys, count * problem.group, row_words, problem.kv_heads);
    }
  }
  return plan;
}

// The order of running: longest first, so that the last piece to finish is a short one.
inline std::vector<int> longest_first(const std::vector<Piece>& pieces) {
  std::vector<int> order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  const auto cost = [&](int i) {
    return static_cast<int64_t>(pieces[i].key_end - pieces[i].key_begin) * (pieces[i].q_count + 4);
  };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return cost(a) > cost(b); });
  return order;
}

}  // namespace tightrun
