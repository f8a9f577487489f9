// A process group behind an opaque pointer, whatever its backend.
#pragma once

#include <chrono>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace vlft {

struct Store {
  c10::intrusive_ptr<c10d::Store> store;
  uint16_t port;
};

struct Group {
  c10::intrusive_ptr<c10d::Backend> backend;
};

struct Work {
  c10::intrusive_ptr<c10d::Work> work;
};

} // namespace vlft
