//! Lets the trainer and its tests find libtorch without `LD_LIBRARY_PATH`.

use std::env::var_os;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = var_os("LIBTORCH") else {
        return;
    };
    let lib = std::path::Path::new(&libtorch).join("lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if var_os("CARGO_FEATURE_CUDA").is_some() {
        // libtorch_cuda registers its kernels when it is loaded; no symbol of it is named, so
        // that a linker with --as-needed would drop it, and the trainer never find a GPU.
        println!("cargo:rustc-link-arg=-L{}", lib.display());
        for argument in [
            "-Wl,--push-state,--no-as-needed",
            "-ltorch_cuda",
            "-Wl,--pop-state",
        ] {
            println!("cargo:rustc-link-arg={argument}");
        }
    }
}
