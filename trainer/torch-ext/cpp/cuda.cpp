// Memory statistics of PyTorch's CUDA caching allocator.
#include "guard.h"

#include <c10/cuda/CUDACachingAllocator.h>

namespace caching = c10::cuda::CUDACachingAllocator;

struct CudaMemory {
  int64_t allocated, peak_allocated, reserved, peak_reserved, free, total;
};

VLFT_API int vlft_cuda_memory(int8_t device, CudaMemory* out, char** message) {
  return vlft::guarded(message, [&] {
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = caching::getDeviceStats(device);
    out->allocated = stats.allocated_bytes[all].current;
    out->peak_allocated = stats.allocated_bytes[all].peak;
    out->reserved = stats.reserved_bytes[all].current;
    out->peak_reserved = stats.reserved_bytes[all].peak;
    const auto [free, total] = caching::get()->getMemoryInfo(device);
    out->free = static_cast<int64_t>(free);
    out->total = static_cast<int64_t>(total);
  });
}

VLFT_API int vlft_cuda_reset_peak(int8_t device, char** message) {
  return vlft::guarded(message, [&] { caching::resetPeakStats(device); });
}

VLFT_API int vlft_cuda_empty_cache(char** message) {
  return vlft::guarded(message, [] { caching::emptyCache(); });
}
