// Runs bound kernel calls one after the other on one team of threads, with a barrier between them.
// A parallel region for each call would cost more than most calls of a decode step take.
#include <atomic>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <sched.h>
#ifdef _OPENMP
#include <omp.h>
#endif

// Does the share of thread `thread` of `threads`; the shares together are the whole call.
using Part = void (*)(const void* call, int64_t thread, int64_t threads);

struct Entry {
  Part part;
  const void* call;
};

namespace {

// A counter that every thread raises once per barrier. Waiting spins, and gives the processor away
// when it lasts: another process may hold the core that a late thread needs.
struct Barrier {
  alignas(64) std::atomic<int64_t> arrived{0};

  void wait(int64_t target) {
    arrived.fetch_add(1, std::memory_order_acq_rel);
    for (int spins = 0; arrived.load(std::memory_order_acquire) < target; spins++) {
      if (spins > 2000) {
        sched_yield();
      } else {
#if defined(__x86_64__)
        _mm_pause();
#endif
      }
    }
  }
};

void run(const Entry* entries, int64_t count, Barrier& barrier, int64_t thread, int64_t threads) {
  for (int64_t i = 0; i < count; i++) {
    entries[i].part(entries[i].call, thread, threads);
    if (threads > 1 && i + 1 < count) barrier.wait((i + 1) * threads);
  }
}

}  // namespace

extern "C" void trimtab_run(const Entry* entries, int64_t count, int64_t threads) {
  Barrier barrier;
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    run(entries, count, barrier, omp_get_thread_num(), omp_get_num_threads());
    return;
  }
#endif
  run(entries, count, barrier, 0, 1);
}
