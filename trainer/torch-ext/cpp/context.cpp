// Process-wide switches and facts that tch does not expose.
#include "guard.h"

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <torch/headeronly/version.h>

VLFT_API int vlft_deterministic(bool on, char** message) {
  return vlft::guarded(message, [&] {
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(on, /*warn_only=*/false);
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicCuDNN(on);
    context.setBenchmarkCuDNN(false);
  });
}

// Vector instruction set that kernels dispatch to, e.g. AVX2; part of what exact resume needs.
VLFT_API char* vlft_cpu_capability() {
  return strdup(at::get_cpu_capability().c_str());
}

VLFT_API char* vlft_torch_version() {
  return strdup(TORCH_VERSION);
}
