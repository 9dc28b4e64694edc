// One call of attention: the operands as the caller gave them, and which keys a query may see.
#pragma once

#include "paged.h"
#include "words.h"

namespace tightrun {

// From a raw product to a score in powers of two: the product, capped first if there is a softcap,
// times `factor`, which is positive.
struct ScoreScale {
  bool capped;
  float factor, cap_factor;

  ScoreScale(float scaling, float softcap)
      : capped(softcap > 0),
        factor((capped ? softcap : scaling) * kLog2e),
        cap_factor(capped ? scaling / softcap : 0) {}

  F32 cap(F32 product) const { return tanh(product * cap_factor); }
};

template <class T>
struct Problem {
  const T* q;
  int64_t q_head_stride, q_token_stride;
  PagedSide<T> k, v;
  T* out;  // [tokens, q_heads, v.width]
  const int32_t* block_table;
  int64_t block_table_stride;
  const int32_t *q_start, *q_len, *context_len;
  int sequences, tokens, q_heads, kv_heads, group;
  ScoreScale score;
  int window;          // 0: none
  const float* sinks;  // [q_heads] or null

  const int32_t* table(int sequence) const { return block_table + sequence * block_table_stride; }
  const T* query(int token, int head) const {
    return q + token * q_token_stride + head * q_head_stride;
  }
  T* output(int token, int head) const {
    return out + (static_cast<int64_t>(token) * q_heads + head) * v.width;
  }
  // Keys seen from `position`: [first_key, position].
  int first_key(int position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
};

// The queries of one key head that are computed together, and the keys they meet:
// row r is query token `q_begin + r / group` of the sequence under head `r % group` of the group.
struct Piece {
  int sequence, kv_head;
  int q_begin, q_count;
  int key_begin, key_end;
  int split;  // index into the splits when the keys are shared between pieces, else -1
  int part;   // which of them
};

}  // namespace tightrun
