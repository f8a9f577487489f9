// Turns C++ exceptions into a status and a message that the caller frees.
#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace vlft {

enum Status : int { kOk = 0, kError = 1, kOutOfMemory = 2 };

inline Status report(char** message, const char* text, Status status) noexcept {
  *message = strdup(text);
  return status;
}

template <class Body>
Status guarded(char** message, Body&& body) noexcept {
  *message = nullptr;
  try {
    body();
    return kOk;
  } catch (const c10::OutOfMemoryError& e) {
    return report(message, e.what_without_backtrace(), kOutOfMemory);
  } catch (const c10::Error& e) {
    return report(message, e.what_without_backtrace(), kError);
  } catch (const std::bad_alloc& e) {
    return report(message, "out of memory", kOutOfMemory);
  } catch (const std::exception& e) {
    return report(message, e.what(), kError);
  } catch (...) {
    return report(message, "unknown C++ exception", kError);
  }
}

// tch hands out `at::Tensor*` as an opaque pointer.
using Handle = at::Tensor*;

} // namespace vlft

#define VLFT_API extern "C" __attribute__((visibility("default")))
