// Backward with output gradients, and presetting `.grad`.
#include "guard.h"

#include <torch/csrc/autograd/autograd.h>

using vlft::Handle;

// Gradients add into the `.grad` of every leaf below `outputs`. A null gradient is allowed for
// a scalar output only.
VLFT_API int vlft_backward(
    const Handle* outputs, const Handle* grads, size_t count, char** message) {
  return vlft::guarded(message, [&] {
    torch::autograd::variable_list roots, seeds;
    roots.reserve(count);
    seeds.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      roots.push_back(*outputs[i]);
      seeds.push_back(grads[i] ? *grads[i] : at::Tensor());
    }
    torch::autograd::backward(roots, seeds, /*retain_graph=*/false, /*create_graph=*/false);
  });
}

// `grad` may have another kind than `leaf` (float32 under bfloat16): autograd then adds in the
// gradient's kind.
VLFT_API int vlft_set_grad(Handle leaf, Handle grad, char** message) {
  return vlft::guarded(message, [&] {
    TORCH_CHECK(leaf->is_leaf(), "set_grad: not a leaf tensor");
    if (!grad) {
      leaf->mutable_grad().reset();
      return;
    }
    TORCH_CHECK(
        leaf->sizes() == grad->sizes(),
        "set_grad: leaf has shape ", leaf->sizes(), ", gradient ", grad->sizes());
    TORCH_CHECK(leaf->device() == grad->device(), "set_grad: leaf and gradient devices differ");
    leaf->mutable_grad() = *grad;
  });
}
