//! Storage that is given back while views of it, and graphs over them, live on.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::error::{Result, checked, handle};

unsafe extern "C" {
    fn vlft_storage_release(tensor: *mut c_void, message: *mut *mut c_char) -> c_int;
    fn vlft_storage_restore(tensor: *mut c_void, message: *mut *mut c_char) -> c_int;
}

/// Gives a tensor's memory back. The tensor, its views and the graphs that saved them stay; what
/// they hold is undefined (zeros on a CPU) until [`restore_storage`] and a write. The tensor must
/// be contiguous and all of its storage.
pub fn release_storage(tensor: &Tensor) -> Result<()> {
    // SAFETY: a live tensor; its storage gets pages of its own on a CPU, and on a GPU a null
    // address, which a kernel that reads it reports as an error.
    checked(|m| unsafe { vlft_storage_release(handle(tensor), m) })
}

/// Takes memory again for a released tensor; its values are undefined until they are written.
/// Autograd does not count this or the write as a change of what graphs have saved.
pub fn restore_storage(tensor: &Tensor) -> Result<()> {
    // SAFETY: a live tensor; the memory comes from the storage's own allocator.
    checked(|m| unsafe { vlft_storage_restore(handle(tensor), m) })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::{backward, set_grad};

    #[test]
    fn a_graph_outlives_the_memory_of_its_weights() -> Result<()> {
        let whole = Tensor::arange(6, (Kind::Double, Device::Cpu));
        let values = whole.copy();
        let leaf = whole.view([2, 3]).data().set_requires_grad(true);
        let grad = Tensor::zeros([2, 3], (Kind::Double, Device::Cpu));
        set_grad(&leaf, Some(&grad))?;
        let input = Tensor::ones([1, 2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let output = input.matmul(&leaf);
        release_storage(&whole)?;
        assert_eq!(whole.sum(Kind::Double).double_value(&[]), 0.0);
        restore_storage(&whole)?;
        tch::no_grad(|| whole.shallow_clone().copy_(&values));
        backward(&[(
            &output,
            &Tensor::from_slice(&[1.0f64, 10.0, 100.0]).view([1, 3]),
        )])?;
        assert_eq!(
            Vec::<f64>::try_from(&input.grad().view([2])).unwrap(),
            [210.0, 543.0]
        );
        assert_eq!(grad.sum(Kind::Double).double_value(&[]), 222.0);
        Ok(())
    }

    #[test]
    fn a_view_cannot_give_back_what_others_use() {
        let whole = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let message = release_storage(&whole.narrow(0, 0, 2))
            .unwrap_err()
            .to_string();
        assert!(message.contains("not all of its storage"), "{message}");
    }
}
