// NCCL process groups (CUDA builds).
#include "guard.h"

#include "collectives.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

using std::chrono::milliseconds;

VLFT_API int vlft_group_nccl(
    const vlft::Store* store, const char* prefix, int rank, int size, int device,
    int64_t timeout_ms, vlft::Group** out, char** message) {
  return vlft::guarded(message, [&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = milliseconds(timeout_ms);
    auto rendezvous = c10::make_intrusive<c10d::PrefixStore>(prefix, store->store);
    auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(rendezvous, rank, size, options);
    // Without it the first barrier guesses the device from the rank.
    group->setBoundDeviceId(at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device)));
    *out = new vlft::Group{std::move(group)};
  });
}
