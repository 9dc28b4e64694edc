// Where the keys and values of a sequence lie: blocks of `block_tokens` rows, named by a table.
#pragma once

#include "simd.h"

namespace tightrun {

// One side (K or V) of the cache of a layer: [blocks, kv_heads, block_tokens, width], strided over blocks.
template <class T>
struct PagedSide {
  const T* base;
  int64_t block_stride;
  int block_shift;  // block_tokens == 1 << block_shift
  int width;

  // The only place that turns a block of the table into an address.
  const T* block(int32_t block_id) const { return base + block_id * block_stride; }

  // Addresses of the rows [first, last) of one head, with `lead` copies of the first before and
  // copies of the last behind until `total` are written. What is computed with the copies is masked;
  // memory that holds no key of the sequence is never read.
  void rows(const int32_t* table, int head, int first, int last, int lead, int total,
            const T** out) const {
    const int64_t head_offset = (static_cast<int64_t>(head) << block_shift) * width;
    const int in_block = (1 << block_shift) - 1;
    int written = lead;
    for (int token = first; token < last;) {
      const T* row = block(table[token >> block_shift]) + head_offset + (token & in_block) * width;
      const int end = (token | in_block) + 1;
      for (const int stop = end < last ? end : last; token < stop; ++token, row += width)
        out[written++] = row;
    }
    for (int i = 0; i < lead; ++i) out[i] = out[lead];
    for (const T* row = out[written - 1]; written < total;) out[written++] = row;
  }
};

// Rows that will be read soon, asked of memory a few cache lines at a time between the computing: all at
// once they would fill the queue that the computing's own loads need, and blocks are too short for the
// processor's own guesses.
template <class T>
class Ahead {
  static constexpr int kLine = 64 / sizeof(T);

 public:
  Ahead(const T* const* rows, int count, int width) : row_(rows), end_(rows + count), width_(width) {}

  void fetch(int lines) {
    for (; lines > 0 && row_ != end_; --lines) {
      __builtin_prefetch(*row_ + column_, 0, 2);
      column_ += kLine;
      if (column_ >= width_) {
        column_ = 0;
        ++row_;
      }
    }
  }

 private:
  const T* const* row_;
  const T* const* end_;
  int width_, column_ = 0;
};

}  // namespace tightrun
