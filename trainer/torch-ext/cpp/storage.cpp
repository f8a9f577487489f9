// Storage that is given back while views of it, and graphs over them, live on.
#include "guard.h"

#include <sys/mman.h>

#include <new>

using vlft::Handle;

namespace {

struct Mapping {
  void* address;
  size_t bytes;
};

void unmap(void* context) {
  auto* mapping = static_cast<Mapping*>(context);
  munmap(mapping->address, mapping->bytes);
  delete mapping;
}

// Pages that cost nothing until they are written: whoever reads a released tensor by mistake
// reads zeros and not foreign memory.
at::DataPtr placeholder(size_t bytes, at::Device device) {
  if (!device.is_cpu() || bytes == 0) return at::DataPtr(nullptr, device);
  constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  TORCH_CHECK(address != MAP_FAILED, "release_storage: cannot reserve ", bytes, " bytes");
  auto* mapping = new Mapping{address, bytes};
  return at::DataPtr(address, mapping, &unmap, device);
}

c10::StorageImpl* whole_storage(Handle tensor) {
  auto* storage = tensor->storage().unsafeGetStorageImpl();
  TORCH_CHECK(
      tensor->storage_offset() == 0 && tensor->is_contiguous() &&
          storage->nbytes() == static_cast<size_t>(tensor->nbytes()),
      "release_storage: the tensor is not all of its storage");
  return storage;
}

} // namespace

VLFT_API int vlft_storage_release(Handle tensor, char** message) {
  return vlft::guarded(message, [&] {
    auto* storage = whole_storage(tensor);
    auto old = storage->set_data_ptr(placeholder(storage->nbytes(), tensor->device()));
  });
}

VLFT_API int vlft_storage_restore(Handle tensor, char** message) {
  return vlft::guarded(message, [&] {
    auto* storage = whole_storage(tensor);
    TORCH_CHECK(storage->allocator(), "restore_storage: the storage has no allocator");
    auto old = storage->set_data_ptr(storage->allocator()->allocate(storage->nbytes()));
  });
}
