// Scatters the keys and values of new tokens into their blocks.

#include <cstdint>
#include <cstring>

#include "team.h"

namespace tightrun {

// Mirrored field by field in cpu.py; strides and widths count bytes.
struct WriteArgs {
  OpenMp omp;
  const void *k, *v;
  void *k_cache, *v_cache;
  const int64_t* slots;  // block * block_tokens + offset; -1 skips the token
  int64_t k_head_stride, k_token_stride, v_head_stride, v_token_stride;
  int64_t k_block_stride, v_block_stride, key_width, value_width;
  int32_t tokens, kv_heads, blocks, block_tokens, threads;
};

constexpr int kTokensPerItem = 32;

struct Side {
  const char* from;
  char* to;
  int64_t head_stride, token_stride, block_stride, width;

  void copy(int64_t token, int head, int64_t block, int64_t offset, int64_t block_tokens) const {
    std::memcpy(to + block * block_stride + (head * block_tokens + offset) * width,
                from + head * head_stride + token * token_stride, width);
  }
};

}  // namespace tightrun

extern "C" __attribute__((visibility("default"))) int tightrun_write_kv(
    const tightrun::WriteArgs* args) {
  using namespace tightrun;
  const WriteArgs& a = *args;
  const int64_t end = static_cast<int64_t>(a.blocks) * a.block_tokens;
  for (int token = 0; token < a.tokens; ++token)
    if (a.slots[token] < -1 || a.slots[token] >= end) return 2;
  const Side k{static_cast<const char*>(a.k), static_cast<char*>(a.k_cache), a.k_head_stride,
               a.k_token_stride, a.k_block_stride, a.key_width};
  const Side v{static_cast<const char*>(a.v), static_cast<char*>(a.v_cache), a.v_head_stride,
               a.v_token_stride, a.v_block_stride, a.value_width};
  const int64_t items = (a.tokens + kTokensPerItem - 1) / kTokensPerItem;
  share_out(a.omp, items, a.threads, [&](int64_t item, int64_t, int) {
    const int64_t first = item * kTokensPerItem;
    const int64_t last = first + kTokensPerItem < a.tokens ? first + kTokensPerItem : a.tokens;
    for (int head = 0; head < a.kv_heads; ++head)
      for (int64_t token = first; token < last; ++token) {
        if (a.slots[token] < 0) continue;
        const int64_t block = a.slots[token] / a.block_tokens;
        const int64_t offset = a.slots[token] % a.block_tokens;
        k.copy(token, head, block, offset, a.block_tokens);
        v.copy(token, head, block, offset, a.block_tokens);
      }
  });
  return 0;
}
