// Tiled attention (FlashAttention, Dao et al. 2022): a tile of query rows against one tile of packed keys
// after another, with a running maximum and sum per row.
#pragma once

#include "finish.h"
#include "gemm.h"
#include "softmax.h"

namespace tightrun {

// Decode rows are cut at multiples of this many keys, whatever else is in the batch and however many
// threads there are, so that a sequence's output depends on neither.
constexpr int kDecodeKeys = 512;
constexpr int kDecodeRows = 8;  // heads that share a pass over the keys
constexpr int kKeyTile = 128;
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
  float *scores, *factors;
  int32_t* positions;
  Sums sums;
  const T *keys_at[kDecodeKeys], *values_at[kDecodeKeys];  // addresses of rows

  static int64_t weight_words(int rows) {
    return std::max(kDecodeRows * kDecodeKeys, rows * (kKeyTile / Math::kPerWord));
  }

  static int64_t words(const Packed<Math>& packed, int rows) {
    return static_cast<int64_t>(rows) * (packed.key_stride + packed.value_stride + 4) +
           kKeyTile * (packed.key_stride + packed.value_stride / Math::kPerWord) +
           weight_words(rows) + kScores + 10 * kLanes;
  }

  Workspace(uint32_t* memory, const Packed<Math>& packed, int rows) {
    auto take = [&](int64_t count) {
      uint32_t* taken = memory;
      memory += (count + kLanes - 1) / kLanes * kLanes;
      return taken;
    };
    keys = take(static_cast<int64_t>(kKeyTile) * packed.key_stride);
    values = take(static_cast<int64_t>(kKeyTile / Math::kPerWord) * packed.value_stride);
    weights = take(weight_words(rows));
    scores = reinterpret_cast<float*>(take(kScores));
    queries = take(static_cast<int64_t>(rows) * packed.key_stride);
    sums.values = reinterpret_cast<float*>(take(static_cast<int64_t>(rows) * packed.value_stride));
    sums.stride = packed.value_stride;
    sums.most = reinterpret_cast<float*>(take(rows));
    sums.weight = reinterpret_cast<float*>(take(rows));
    factors = reinterpret_cast<float*>(take(rows));
    positions = reinterpret_cast<int32_t*>(take(rows));
  }

  RowStates states() const { return {sums.most, sums.weight, factors}; }
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

// The rows of a piece, `Rows` at a time, against one tile of keys after another.
template <class Math, int Rows>
class TiledRows {
  using T = typename Math::Stored;
  static constexpr int kWeightStride = kKeyTile / Math::kPerWord;

 public:
  TiledRows(const Problem<T>& problem, const Piece& piece, const Packed<Math>& packed,
            Workspace<Math>& work)
      : problem_(problem), piece_(piece), packed_(packed), work_(work), sums_(work.sums) {}

  // The sums are left in the workspace.
  void attend() {
    const int rows = piece_.q_count * problem_.group;
    rows_ = round_up(rows, Rows);
    const int position = problem_.context_len[piece_.sequence] + piece_.q_begin;
    for (int row = 0; row < rows_; ++row)
      work_.positions[row] = position + std::min(row, rows - 1) / problem_.group;
    pack_queries(problem_, piece_, packed_, rows_, work_.queries);
    std::fill_n(sums_.most, rows_, kMinusInfinity);
    std::fill_n(sums_.weight, rows_, 0.0f);
    std::fill_n(sums_.values, static_cast<int64_t>(rows_) * sums_.stride, 0.0f);
    const int first_tile = piece_.key_begin / kKeyTile * kKeyTile;
    for (tile_ = first_tile; tile_ < piece_.key_end; tile_ += kKeyTile) {
      first_ = std::max(tile_, piece_.key_begin);
      last_ = std::min(tile_ + kKeyTile, piece_.key_end);
      find_rows(tile_);
      pack_keys<Math>(work_.keys_at, key_count(tile_), packed_, work_.keys);
      pack_values<Math>(work_.values_at, key_count(tile_), problem_.v.width, packed_, work_.values);
      const int ahead = tile_ + kKeyTile < piece_.key_end ? key_count(tile_ + kKeyTile) : 0;
      if (ahead) find_rows(tile_ + kKeyTile);
      Ahead<T> next_keys(work_.keys_at, ahead, problem_.k.width);
      Ahead<T> next_values(work_.values_at, ahead, problem_.v.width);
      const int widest = std::max(problem_.k.width, problem_.v.width) * int{sizeof(T)};
      const int pace = (kKeyTile * round_up(widest, 64) / 64 * Rows + rows_ - 1) / rows_;
      // Two sweeps, so that only K or V has to stay in the first-level cache.
      for (int row = 0; row < rows_; row += Rows) {
        next_keys.fetch(pace);
        next_values.fetch(pace);
        weigh(row);
      }
      for (int row = 0; row < rows_; row += Rows) add_values(row);
    }
  }

 private:
  // Columns of the tile that some of the rows from `row` on see, in whole vectors.
  struct Columns {
    int begin, count;
  };
  Columns columns(int row) const {
    const int low = std::max(problem_.first_key(work_.positions[row]), first_) - tile_;
    const int high = std::min(work_.positions[row + Rows - 1] + 1, last_) - tile_;
    const int begin = low / kLanes * kLanes;
    return {begin, high > low ? round_up(high, kLanes) - begin : 0};
  }

  // Keys of a tile, filled up to a whole vector.
  int key_count(int tile) const {
    return round_up(std::min(kKeyTile, piece_.key_end - tile), kLanes);
  }

  void find_rows(int tile) {
    const int32_t* table = problem_.table(piece_.sequence);
    const int first = std::max(tile, piece_.key_begin);
    const int last = std::min(tile + kKeyTile, piece_.key_end);
    const int lead = first - tile, count = key_count(tile);
    problem_.k.rows(table, piece_.kv_head, first, last, lead, count, work_.keys_at);
    problem_.v.rows(table, piece_.kv_head, first, last, lead, count, work_.values_at);
  }

  void weigh(int row) {
    const auto [begin, count] = columns(row);
    if (count == 0) return;
    product<Math, Rows>(work_.queries + static_cast<int64_t>(row) * packed_.key_stride,
                        packed_.key_stride, work_.keys + begin, kKeyTile, work_.scores, kKeyTile,
                        packed_.key_words, count / kLanes, nullptr);
    int low[Rows], high[Rows];
    for (int r = 0; r < Rows; ++r) {
      const int position = work_.positions[row + r];
      low[r] = std::max(problem_.first_key(position), first_) - tile_ - begin;
      high[r] = std::min(position + 1, last_) - tile_ - begin;
    }
    weigh_all<Math, Rows>({work_.scores, kKeyTile, count, low, high}, problem_.score,
                          work_.states() + row, work_.weights + row * kWeightStride, kWeightStride);
  }

  void add_values(int row) {
    const auto [begin, count] = columns(row);
    if (count == 0) return;
    product<Math, Rows>(work_.weights + row * kWeightStride, kWeightStride,
                        work_.values + begin / Math::kPerWord * packed_.value_stride,
                        packed_.value_stride,
                        sums_.values + static_cast<int64_t>(row) * sums_.stride, sums_.stride,
                        count / Math::kPerWord,
                        packed_.value_stride / kLanes, work_.factors + row);
  }

  const Problem<T>& problem_;
  const Piece& piece_;
  const Packed<Math>& packed_;
  Workspace<Math>& work_;
  Sums& sums_;
  int rows_ = 0, tile_ = 0, first_ = 0, last_ = 0;
};

template <class Math>
void attend_prefill(const Problem<typename Math::Stored>& problem, const Piece& piece,
                    const Packed<Math>& packed, Workspace<Math>& work) {
  const int rows = piece.q_count * problem.group;
  if (rows <= 2)
    TiledRows<Math, 2>(problem, piece, packed, work).attend();
  else if (rows <= 4)
    TiledRows<Math, 4>(problem, piece, packed, work).attend();
  else
    TiledRows<Math, kTileRows>(problem, piece, packed, work).attend();
}

}  // namespace tightrun
