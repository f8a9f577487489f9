//! Compiles the C++ part against the libtorch that tch links.

use std::{env, path::PathBuf};

const SOURCES: [&str; 6] = [
    "cpp/autograd.cpp",
    "cpp/optimizer.cpp",
    "cpp/memory.cpp",
    "cpp/context.cpp",
    "cpp/collectives.cpp",
    "cpp/storage.cpp",
];

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=cpp");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!("cargo::error=LIBTORCH is not set; run `source scripts/env.sh` first");
        return;
    };
    let cuda = env::var_os("CARGO_FEATURE_CUDA").is_some();
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .flag("-std=c++20")
        .flag("-O2")
        .flag("-fvisibility=hidden")
        .define("USE_C10D_GLOO", None)
        .include("cpp")
        .flag("-isystem")
        .flag(libtorch.join("include").to_string_lossy().as_ref())
        .flag("-isystem")
        .flag(
            libtorch
                .join("include/torch/csrc/api/include")
                .to_string_lossy()
                .as_ref(),
        )
        .files(SOURCES);
    if cuda {
        build
            .define("VLFT_CUDA", None)
            .define("USE_C10D_NCCL", None)
            .files(["cpp/cuda.cpp", "cpp/nccl.cpp"]);
        // The CUDA wheels keep their headers in folders of their own.
        for include in env::split_paths(&env::var_os("CUDA_INCLUDE").unwrap_or_default()) {
            build
                .flag("-isystem")
                .flag(include.to_string_lossy().as_ref());
        }
        println!("cargo:rerun-if-env-changed=CUDA_INCLUDE");
    }
    build.compile("vlft_torch_ext");
    println!(
        "cargo:rustc-link-search=native={}",
        libtorch.join("lib").display()
    );
    for library in ["torch_cpu", "c10"]
        .iter()
        .chain(cuda.then_some(&"c10_cuda"))
    {
        println!("cargo:rustc-link-lib={library}");
    }
    // For this crate's own tests; binaries of other crates emit theirs.
    println!(
        "cargo:rustc-link-arg=-Wl,-rpath,{}",
        libtorch.join("lib").display()
    );
}
