// c10d: the store where ranks meet, and collectives over it.
#include "guard.h"

#include "collectives.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

using std::chrono::milliseconds;
using vlft::Group;
using vlft::guarded;
using vlft::Handle;
using vlft::Store;
using vlft::Work;

VLFT_API int vlft_store_new(
    const char* host, uint16_t port, bool serve, int64_t timeout_ms, Store** out, char** message) {
  return guarded(message, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    // Ranks wait for each other in the group's own rendezvous, not here.
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    const uint16_t bound = store->getPort();
    *out = new Store{std::move(store), bound};
  });
}

VLFT_API uint16_t vlft_store_port(const Store* store) { return store->port; }

VLFT_API void vlft_store_free(Store* store) { delete store; }

VLFT_API int vlft_store_set(
    Store* store, const char* key, const uint8_t* value, size_t length, char** message) {
  return guarded(message, [&] {
    store->store->set(key, std::vector<uint8_t>(value, value + length));
  });
}

// Waits until the key is there; the value's first `capacity` bytes go to `value`.
VLFT_API int vlft_store_get(
    Store* store, const char* key, uint8_t* value, size_t capacity, size_t* length,
    char** message) {
  return guarded(message, [&] {
    const auto found = store->store->get(key);
    *length = found.size();
    std::memcpy(value, found.data(), std::min(capacity, found.size()));
  });
}

VLFT_API int vlft_store_has(Store* store, const char* key, bool* has, char** message) {
  return guarded(message, [&] { *has = store->store->check({key}); });
}

VLFT_API int vlft_group_gloo(
    const Store* store, const char* prefix, const char* address, int rank, int size,
    int64_t timeout_ms, Group** out, char** message) {
  return guarded(message, [&] {
    auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
    // One thread runs collectives in the order of their issue.
    options->threads = 1;
    auto rendezvous = c10::make_intrusive<c10d::PrefixStore>(prefix, store->store);
    *out = new Group{
        c10::make_intrusive<c10d::ProcessGroupGloo>(rendezvous, rank, size, options)};
  });
}

VLFT_API void vlft_group_free(Group* group) { delete group; }

VLFT_API int vlft_group_abort(Group* group, char** message) {
  return guarded(message, [&] {
    // Gloo has nothing to abort: its collectives end with their time-out or their peer.
    if (group->backend->getBackendName() != c10d::GLOO_BACKEND_NAME) group->backend->abort();
  });
}

VLFT_API int vlft_all_reduce(
    Group* group, Handle tensor, bool max, Work** out, char** message) {
  return guarded(message, [&] {
    c10d::AllreduceOptions options;
    options.reduceOp = max ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    std::vector<at::Tensor> tensors{*tensor};
    *out = new Work{group->backend->allreduce(tensors, options)};
  });
}

VLFT_API int vlft_reduce_scatter(
    Group* group, Handle output, Handle input, Work** out, char** message) {
  return guarded(message, [&] {
    *out = new Work{group->backend->_reduce_scatter_base(*output, *input, {})};
  });
}

VLFT_API int vlft_all_gather(
    Group* group, Handle output, Handle input, Work** out, char** message) {
  return guarded(message, [&] {
    *out = new Work{group->backend->_allgather_base(*output, *input, {})};
  });
}

VLFT_API int vlft_broadcast(
    Group* group, Handle tensor, int root, Work** out, char** message) {
  return guarded(message, [&] {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{*tensor};
    *out = new Work{group->backend->broadcast(tensors, options)};
  });
}

VLFT_API int vlft_barrier(Group* group, Work** out, char** message) {
  return guarded(message, [&] { *out = new Work{group->backend->barrier({})}; });
}

VLFT_API int vlft_work_wait(Work* work, int64_t timeout_ms, char** message) {
  return guarded(message, [&] {
    TORCH_CHECK(work->work->wait(milliseconds(timeout_ms)), "the collective did not end");
  });
}

VLFT_API bool vlft_work_is_completed(Work* work) { return work->work->isCompleted(); }

VLFT_API void vlft_work_free(Work* work) { delete work; }
