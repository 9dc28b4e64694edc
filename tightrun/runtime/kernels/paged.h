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

// Rows that will be read soon, asked of memory in the order and at the pace of what is read now. Blocks
// are too short for the processor's own guesses: 10 GB/s without, 18 with, on one core of an EPYC.
template <class T>
struct Ahead {
  const T* const* rows = nullptr;
  int count = 0;
  int width = 0;

  void fetch(int first, int number) const {
    const int last = first + number < count ? first + number : count;
    for (int i = first; i < last; ++i)
      for (int column = 0; column < width; column += 64 / sizeof(T))
        __builtin_prefetch(rows[i] + column, 0, 2);
  }
};

}  // namespace tightrun
