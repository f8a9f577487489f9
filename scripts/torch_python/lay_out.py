"""Lays out a Python `torch` and `torchvision` that run on the CPU without 2 GB of CUDA libraries.

Usage: lay_out.py DOWNLOADS LIBTORCH TARGET

The wheels on PyPI link against libtorch_cuda, which needs cuBLAS, cuDNN, NCCL and more to load.
This script unpacks them without libtorch_cuda and puts a small library in its place that defines
the symbols which libtorch_python binds at load time. PyTorch then finds no CUDA hooks registered
and behaves as a CPU build: `torch.cuda.is_available()` is False.
"""

import os
import pathlib
import re
import subprocess
import sys
import zipfile

WHEELS = ("torch-", "torchvision-", "nvidia_cuda_runtime-", "nvidia_cuda_cupti-")
LEFT_OUT = re.compile(r"torch/(include|bin/protoc|lib/libtorch_cuda|lib/libtorch_nvshmem)")
REPLACED = ("libtorch_cuda.so", "libtorch_nvshmem.so")
STANDINS = ("libtorch_cuda.so", "libcudnn.so.9", "libcufile.so.0", "libnccl.so.2")
FOREIGN_PREFIXES = ("cuFile", "cudnn", "nccl")
CUDA_REQUIREMENT = re.compile(r"^Requires-Dist: (nvidia|cuda|triton)[^\n]*\n", re.MULTILINE)


def main() -> None:
    downloads, libtorch, target = map(pathlib.Path, sys.argv[1:])
    replaced = target / "replaced"
    for wheel in sorted(downloads.glob("*.whl")):
        if wheel.name.startswith(WHEELS):
            unpack(wheel, target, replaced)
    for library in ("libtorch_cpu.so", "libc10.so"):
        share(libtorch / "lib" / library, target / "torch" / "lib" / library)
    strip_cuda_requirements(target)
    build_standins(target, replaced, libtorch / "include")
    for library in replaced.iterdir():
        library.unlink()
    replaced.rmdir()


def unpack(wheel: pathlib.Path, target: pathlib.Path, replaced: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if pathlib.PurePath(name).name in REPLACED:
                replaced.mkdir(parents=True, exist_ok=True)
                (replaced / pathlib.PurePath(name).name).write_bytes(archive.read(name))
            elif not LEFT_OUT.match(name):
                archive.extract(name, target)
    manager = target / "torch" / "bin" / "torch_shm_manager"
    if manager.exists():
        manager.chmod(0o755)


def share(original: pathlib.Path, copy: pathlib.Path) -> None:
    """Replaces the unpacked file by a hard link to the trainer's own copy: 400 MB less."""
    if original.stat().st_size != copy.stat().st_size:
        sys.exit(f"torch: {original} and {copy} differ; empty the cache folder and run again")
    copy.unlink()
    try:
        os.link(original, copy)
    except OSError:
        copy.write_bytes(original.read_bytes())


def strip_cuda_requirements(target: pathlib.Path) -> None:
    """So that pip sees torch's requirements met."""
    for metadata in target.glob("torch-*.dist-info/METADATA"):
        metadata.write_text(CUDA_REQUIREMENT.sub("", metadata.read_text()))


def build_standins(target: pathlib.Path, replaced: pathlib.Path, include: pathlib.Path) -> None:
    lib = target / "torch" / "lib"
    needed = set()
    for library in (lib / "libtorch_python.so", lib / "libtorch.so", target / "torchvision" / "_C.so"):
        needed |= {fields[-1] for fields in symbols(library, "--undefined-only")}
    here = pathlib.Path(__file__).parent
    compiled = replaced / "cuda_stub.o"
    flags = ["-std=c++20", "-fPIC", "-O1", f"-I{include}", f"-I{include}/torch/csrc/api/include"]
    run("g++", *flags, "-c", str(here / "cuda_stub.cpp"), "-o", str(compiled))
    implemented = {fields[-1] for fields in symbols(compiled, "--defined-only", dynamic=False)}
    assembly = replaced / "standin.s"
    assembly.write_text(standin_assembly(replaced, needed - implemented))
    for name in STANDINS:
        # torch's own rpath finds these beside libtorch_python.
        soname = f"-Wl,-soname,{name}"
        run("g++", "-shared", "-o", str(lib / name), str(assembly), str(compiled), soname,
            f"-L{lib}", "-lc10", "-Wl,--allow-shlib-undefined")


def standin_assembly(replaced: pathlib.Path, needed: set[str]) -> str:
    lines = [".text"]
    for library in REPLACED:
        for fields in symbols(replaced / library, "--defined-only", "-S"):
            if len(fields) == 4 and fields[-1] in needed:
                _, size, kind, name = fields
                needed.discard(name)
                lines += aborting_function(name) if kind in "TW" else data_object(name, int(size, 16))
    for name in sorted(needed):
        if name.startswith(FOREIGN_PREFIXES):
            lines += aborting_function(name)
    return "\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""])


def aborting_function(name: str) -> list[str]:
    return [
        f".globl {name}", f".type {name},@function",
        f"{name}: leaq 9f(%rip),%rdi", "subq $8,%rsp", "call puts@PLT", "call abort@PLT",
        f'9: .asciz "this torch has no CUDA, but {name} was called"',
    ]


def data_object(name: str, size: int) -> list[str]:
    """A zeroed object; type information gets a name, which pybind11 reads on registration."""
    head = [".data", ".balign 16", f".weak {name}", f".type {name},@object", f".size {name},{size}"]
    body = [f"{name}: .zero {size}"]
    if name.startswith("_ZTI"):
        body = [
            f"{name}: .quad _ZTVN10__cxxabiv117__class_type_infoE+16", ".quad 9f", ".quad 0",
            f'9: .asciz "{name[4:]}"',
        ]
    return [*head, *body, ".text"]


def symbols(library: pathlib.Path, *flags: str, dynamic: bool = True) -> list[list[str]]:
    command = ["nm", *(["-D"] if dynamic else []), *flags, str(library)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("@")[0].split() for line in listing.splitlines()]


def run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
