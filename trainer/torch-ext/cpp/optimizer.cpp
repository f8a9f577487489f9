// Fused AdamW on flat slices.
#include "guard.h"

#include <vector>

#include <ATen/ops/_fused_adamw.h>

using vlft::Handle;

struct AdamWScalars {
  double lr, beta1, beta2, weight_decay, eps;
};

// `tensors` holds `count` groups of five: parameter, gradient, first moment, second moment,
// step (float32 scalar, already advanced). `grad_scale` and `found_inf` may be null.
VLFT_API int vlft_fused_adamw(
    const Handle* tensors,
    size_t count,
    const AdamWScalars* scalars,
    Handle grad_scale,
    Handle found_inf,
    char** message) {
  return vlft::guarded(message, [&] {
    std::vector<at::Tensor> columns[5];
    for (auto& column : columns) {
      column.reserve(count);
    }
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = 0; j < 5; ++j) {
        columns[j].push_back(*tensors[i * 5 + j]);
      }
    }
    auto optional = [](Handle h) { return h ? std::optional<at::Tensor>(*h) : std::nullopt; };
    at::_fused_adamw_(
        columns[0], columns[1], columns[2], columns[3], {}, columns[4],
        scalars->lr, scalars->beta1, scalars->beta2, scalars->weight_decay, scalars->eps,
        /*amsgrad=*/false, /*maximize=*/false, optional(grad_scale), optional(found_inf));
  });
}
