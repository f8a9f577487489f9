// A CPU allocator that counts and can refuse, and tensors over mapped memory.
#include "guard.h"

#include <atomic>
#include <malloc.h>

#include <ATen/ops/from_blob.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

using vlft::Handle;

namespace {

std::atomic<int64_t> g_current{0};
std::atomic<int64_t> g_peak{0};
std::atomic<int64_t> g_total{0};
std::atomic<int64_t> g_limit{0};

// What malloc really set aside, so that freeing subtracts exactly what allocating added.
int64_t block_size(void* data) {
  return static_cast<int64_t>(malloc_usable_size(data));
}

void count_allocation(int64_t bytes) {
  g_total.fetch_add(1, std::memory_order_relaxed);
  const int64_t now = g_current.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t peak = g_peak.load(std::memory_order_relaxed);
  while (now > peak && !g_peak.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

void refuse_beyond_limit(size_t bytes) {
  const int64_t limit = g_limit.load(std::memory_order_relaxed);
  const int64_t current = g_current.load(std::memory_order_relaxed);
  if (limit > 0 && current + static_cast<int64_t>(bytes) > limit) {
    TORCH_CHECK_WITH(
        OutOfMemoryError, false,
        "CPU out of memory: tried to allocate ", bytes, " bytes with ", current,
        " in use, limit ", limit);
  }
}

void release(void* data) {
  if (data) {
    g_current.fetch_sub(block_size(data), std::memory_order_relaxed);
    c10::free_cpu(data);
  }
}

struct CountingAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    refuse_beyond_limit(bytes);
    void* data = c10::alloc_cpu(bytes);
    if (data) {
      count_allocation(block_size(data));
    }
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* dest, const void* src, std::size_t count) const override {
    default_copy_data(dest, src, count);
  }
};

} // namespace

// Idempotent; tensors made before keep their own deleter.
VLFT_API int vlft_cpu_allocator_install(char** message) {
  return vlft::guarded(message, [] {
    static CountingAllocator allocator;
    c10::SetCPUAllocator(&allocator, /*priority=*/1);
  });
}

VLFT_API void vlft_cpu_memory(int64_t* current, int64_t* peak, int64_t* allocations) {
  *current = g_current.load();
  *peak = g_peak.load();
  *allocations = g_total.load();
}

VLFT_API void vlft_cpu_memory_reset_peak() {
  g_peak.store(g_current.load());
}

VLFT_API void vlft_cpu_memory_limit(int64_t bytes) {
  g_limit.store(bytes);
}

// A tensor over memory that `drop(owner)` releases once the last view of it is gone. On error
// the owner is left to the caller.
VLFT_API int vlft_tensor_over(
    void* data,
    const int64_t* shape,
    size_t dims,
    int kind,
    void* owner,
    void (*drop)(void*),
    Handle* result,
    char** message) {
  return vlft::guarded(message, [&] {
    const auto options = at::TensorOptions().dtype(static_cast<at::ScalarType>(kind));
    *result = new at::Tensor(
        at::from_blob(data, at::IntArrayRef(shape, dims), [owner, drop](void*) { drop(owner); },
                      options));
  });
}

VLFT_API void vlft_free(void* message) {
  free(message);
}
