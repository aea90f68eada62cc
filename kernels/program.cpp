// Runs bound kernel calls one after the other on one team of threads. A parallel region for each
// call would cost more than most calls of a decode step take.
//
// A call is cut into shares; a thread takes the next share that nobody has. So a thread whose core
// is given to another process holds up the others for one share at most, not at every call.
#include <atomic>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <sched.h>

// Does share `share` of `shares`; the shares together are the whole call.
using Part = void (*)(const void* call, int64_t share, int64_t shares);

struct alignas(64) Entry {
  Part part;
  const void* call;
  int64_t most;  // more shares than this are of no use; 0: no limit
  int64_t shares;
  std::atomic<int64_t> taken;
  std::atomic<int64_t> done;
};

// Two for each thread: fewer wait longer for a thread that was late, more cost more.
constexpr int64_t kSharesPerThread = 2;

namespace {

// Waiting spins, and soon gives the processor away: a late thread may need this very core.
void wait_for(const Entry& entry) {
  for (int spins = 0; entry.done.load(std::memory_order_acquire) < entry.shares; spins++) {
    if (spins > 2000) {
      sched_yield();
    } else {
#if defined(__x86_64__)
      _mm_pause();
#endif
    }
  }
}

void work(Entry* entries, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    Entry& entry = entries[i];
    while (entry.taken.load(std::memory_order_relaxed) < entry.shares) {
      const int64_t share = entry.taken.fetch_add(1, std::memory_order_relaxed);
      if (share >= entry.shares) break;
      entry.part(entry.call, share, entry.shares);
      entry.done.fetch_add(1, std::memory_order_release);
    }
    wait_for(entry);
  }
}

}  // namespace

extern "C" int64_t trimtab_entry_bytes() { return sizeof(Entry); }

extern "C" void trimtab_run(Entry* entries, int64_t count, int64_t threads) {
#ifdef _OPENMP
  if (threads > 1) {
    const int64_t shares = kSharesPerThread * threads;
    for (int64_t i = 0; i < count; i++) {
      const int64_t most = entries[i].most;
      entries[i].shares = most && most < shares ? most : shares;
      entries[i].taken.store(0, std::memory_order_relaxed);
      entries[i].done.store(0, std::memory_order_relaxed);
    }
#pragma omp parallel num_threads(threads)
    work(entries, count);
    return;
  }
#endif
  for (int64_t i = 0; i < count; i++) entries[i].part(entries[i].call, 0, 1);
}
