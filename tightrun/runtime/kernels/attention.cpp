// Attention of a packed, ragged batch over a paged KV cache; the C interface.

#include <cstdlib>
#include <memory>
#include <new>

#include "schedule.h"
#include "team.h"

namespace tightrun {

// Mirrored field by field in cpu.py; strides count elements.
struct AttendArgs {
  OpenMp omp;
  const void *q, *k, *v;
  void* out;
  const int32_t *block_table, *q_start, *q_len, *context_len;
  const float* sinks;
  int64_t q_head_stride, q_token_stride, k_block_stride, v_block_stride, block_table_stride;
  int32_t sequences, tokens, q_heads, kv_heads, key_width, value_width;
  int32_t blocks, block_tokens, table_width, window, threads, is_bf16;
  float scaling, softcap;
};

struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};
using Words = std::unique_ptr<uint32_t, FreeMemory>;

Words allocate_words(int64_t count) {
  const size_t bytes = (static_cast<size_t>(count) * 4 + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, bytes ? bytes : 64);
  if (!memory) throw std::bad_alloc();
  return Words(static_cast<uint32_t*>(memory));
}

// Rows of q that belong to no sequence come out as zeros.
template <class T>
void clear_uncovered(const Problem<T>& problem) {
  std::vector<bool> covered(problem.tokens);
  for (int s = 0; s < problem.sequences; ++s)
    std::fill_n(covered.begin() + problem.q_start[s], problem.q_len[s], true);
  const size_t row = sizeof(T) * problem.q_heads * problem.v.width;
  for (int token = 0; token < problem.tokens; ++token)
    if (!covered[token]) std::memset(problem.output(token, 0), 0, row);
}

template <class Math>
class Attention {
  using T = typename Math::Stored;

 public:
  explicit Attention(const Problem<T>& problem, int threads)
      : problem_(problem), threads_(threads), packed_(problem.k.width, problem.v.width) {}

  void run(const OpenMp& omp) {
    plan_ = cut(problem_, packed_.value_stride + 2, threads_);
    order_ = longest_first(plan_.pieces);
    const int rows = round_up(std::max(kQueryRows, problem_.group), kTileRows);
    const int64_t per_thread = round_up(Workspace<Math>::words(packed_, rows), 64);
    const Words memory = allocate_words(per_thread * threads_);
    split_memory_ = allocate_words(plan_.split_words);
    const size_t counters = plan_.splits.size() * problem_.kv_heads;
    unfinished_ = std::make_unique<std::atomic<int>[]>(counters);
    for (size_t i = 0; i < counters; ++i)
      unfinished_[i] = plan_.splits[i / problem_.kv_heads].parts;

    const int64_t items = static_cast<int64_t>(order_.size()) * problem_.kv_heads;
    share_out(omp, items, threads_, [&](int64_t item, int64_t next, int thread) {
      Workspace<Math> work(memory.get() + per_thread * thread, packed_, rows);
      const Piece piece = piece_of(item);
      if (is_decode(piece)) {
        const Piece following = piece_of(std::min(next, items - 1));
        attend_decode(problem_, piece, is_decode(following) ? &following : nullptr, packed_, work);
      } else {
        attend_prefill(problem_, piece, packed_, work);
      }
      finish(piece, work.sums);
    });
  }

 private:
  Piece piece_of(int64_t item) const {
    Piece piece = plan_.pieces[order_[item / problem_.kv_heads]];
    piece.kv_head = static_cast<int>(item % problem_.kv_heads);
    return piece;
  }

  bool is_decode(const Piece& piece) const { return problem_.q_len[piece.sequence] == 1; }

  // Writes the output rows, or leaves the sums for whoever finishes the last part of them.
  void finish(const Piece& piece, const Sums& sums) {
    if (piece.split < 0) return finish_rows<Math>(problem_, piece, sums);
    const Split& split = plan_.splits[piece.split];
    const auto part = [&](int i) { return part_sums(split, piece.kv_head, i); };
    const Sums mine = part(piece.part);
    std::copy_n(sums.values, static_cast<int64_t>(split.rows) * mine.stride, mine.values);
    std::copy_n(sums.most, split.rows, mine.most);
    std::copy_n(sums.weight, split.rows, mine.weight);
    std::atomic<int>& unfinished = unfinished_[piece.split * problem_.kv_heads + piece.kv_head];
    if (unfinished.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    join_parts(part, split.parts, split.rows);
    finish_rows<Math>(problem_, piece, part(0));
  }

  Sums part_sums(const Split& split, int kv_head, int part) const {
    const int64_t words = static_cast<int64_t>(split.rows) * (packed_.value_stride + 2);
    float* values = reinterpret_cast<float*>(split_memory_.get()) + split.first_word +
                    words * (static_cast<int64_t>(kv_head) * split.parts + part);
    float* most = values + static_cast<int64_t>(split.rows) * packed_.value_stride;
    return {values, packed_.value_stride, most, most + split.rows};
  }

  const Problem<T>& problem_;
  const int threads_;
  const Packed<Math> packed_;
  Schedule plan_;
  std::vector<int> order_;
  Words split_memory_;
  std::unique_ptr<std::atomic<int>[]> unfinished_;
};

template <class Math>
Fault attend(const AttendArgs& a) {
  using T = typename Math::Stored;
  const int shift = __builtin_ctz(static_cast<unsigned>(a.block_tokens));
  const Problem<T> problem{static_cast<const T*>(a.q),
                           a.q_head_stride,
                           a.q_token_stride,
                           {static_cast<const T*>(a.k), a.k_block_stride, shift, a.key_width},
                           {static_cast<const T*>(a.v), a.v_block_stride, shift, a.value_width},
                           static_cast<T*>(a.out),
                           a.block_table,
                           a.block_table_stride,
                           a.q_start,
                           a.q_len,
                           a.context_len,
                           a.sequences,
                           a.tokens,
                           a.q_heads,
                           a.kv_heads,
                           a.q_heads / a.kv_heads,
                           ScoreScale(a.scaling, a.softcap),
                           a.window,
                           a.sinks};
  const Fault fault = check(problem, a.blocks, a.table_width, shift);
  if (fault != Fault::none) return fault;
  clear_uncovered(problem);
  Attention<Math>(problem, a.threads).run(a.omp);
  return Fault::none;
}

}  // namespace tightrun

extern "C" __attribute__((visibility("default"))) int tightrun_attend(
    const tightrun::AttendArgs* args) {
  using namespace tightrun;
  try {
    return static_cast<int>(args->is_bf16 ? attend<Bf16>(*args) : attend<Float32>(*args));
  } catch (const std::bad_alloc&) {
    return static_cast<int>(Fault::memory);
  }
}
