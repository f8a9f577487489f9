//! Process-wide switches and facts.

use std::ffi::{c_char, c_int};

use crate::error::{Result, checked, owned_string};

unsafe extern "C" {
    fn vlft_deterministic(on: bool, message: *mut *mut c_char) -> c_int;
    fn vlft_cpu_capability() -> *mut c_char;
    fn vlft_torch_version() -> *mut c_char;
}

/// As `torch.use_deterministic_algorithms`: operations without a deterministic form fail.
pub fn set_deterministic(on: bool) -> Result<()> {
    // SAFETY: sets flags of the global context.
    checked(|m| unsafe { vlft_deterministic(on, m) })
}

/// The vector instructions that CPU kernels dispatch to, e.g. `AVX2`.
pub fn cpu_capability() -> String {
    // SAFETY: returns a fresh heap string.
    owned_string(unsafe { vlft_cpu_capability() })
}

/// libtorch's version, e.g. `2.13.0`.
pub fn torch_version() -> String {
    // SAFETY: returns a fresh heap string.
    owned_string(unsafe { vlft_torch_version() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_linked_libtorch_is_the_pinned_one() {
        assert_eq!(super::torch_version(), "2.13.0");
        assert!(!super::cpu_capability().is_empty());
    }
}
