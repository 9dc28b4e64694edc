// The threads torch already has. The OpenMP runtime's entry points come from the caller, who finds
// them in torch's own libraries: a second runtime would be a second team on the same cores.
#pragma once

#include <atomic>
#include <cstdint>

namespace tightrun {

using ParallelFn = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
using ThreadNumberFn = int (*)();

struct OpenMp {
  ParallelFn parallel;
  ThreadNumberFn thread_number;
};

// Calls work(item, next, thread) for every item in [0, items), in order of their number as threads get
// free. `next` is the item the same thread will do afterwards, so that it can be fetched early; it may
// lie beyond the last.
template <class Work>
void share_out(const OpenMp& omp, int64_t items, int threads, Work&& work) {
  if (items < threads) threads = static_cast<int>(items);
  if (threads <= 1) {
    for (int64_t item = 0; item < items; ++item) work(item, item + 1, 0);
    return;
  }
  struct Shared {
    Work& work;
    const OpenMp& omp;
    int64_t items;
    std::atomic<int64_t> next;
  } shared{work, omp, items, {0}};
  const auto body = [](void* data) {
    auto& s = *static_cast<Shared*>(data);
    const int thread = s.omp.thread_number();
    const auto claim = [&] { return s.next.fetch_add(1, std::memory_order_relaxed); };
    for (int64_t item = claim(), next; item < s.items; item = next) {
      next = claim();
      s.work(item, next, thread);
    }
  };
  omp.parallel(body, &shared, static_cast<unsigned>(threads), 0);
}

}  // namespace tightrun
