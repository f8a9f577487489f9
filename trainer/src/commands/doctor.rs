//! `trainer doctor`: what this machine offers.

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};

/// Says what this machine offers: device, libtorch, CUDA, memory.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Fail unless the machine has this
    #[arg(long, value_enum, ignore_case = true)]
    require: Option<Requirement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Requirement {
    Gpu,
}

/// The findings. Bytes are absent where the system does not tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Findings {
    trainer: String,
    libtorch: String,
    cuda_build: bool,
    cuda_available: bool,
    gpus: Vec<Gpu>,
    cpu_capability: String,
    cpus: usize,
    threads: i32,
    memory_bytes: Option<u64>,
    memory_available_bytes: Option<u64>,
    /// Memory limit of this container.
    cgroup_limit_bytes: Option<u64>,
    /// Size of `/dev/shm`, which NCCL needs.
    shm_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Gpu {
    index: u32,
    name: String,
    memory_bytes: u64,
    driver: String,
}

pub(super) fn run(args: DoctorArgs) -> Result<()> {
    let findings = examine();
    if args.json {
        let json = serde_json::to_string_pretty(&findings)
            .map_err(|cause| Error::Bug(cause.to_string()))?;
        println!("{json}");
    } else {
        print!("{}", readable(&findings));
    }
    match args.require {
        Some(Requirement::Gpu) if !findings.cuda_available => Err(Error::User(
            advice(&findings).unwrap_or("no GPU").to_owned(),
        )),
        _ => Ok(()),
    }
}

fn examine() -> Findings {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Findings {
        trainer: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch: torch_ext::torch_version(),
        cuda_build: cfg!(feature = "cuda"),
        cuda_available: tch::Cuda::is_available(),
        gpus: gpus(),
        cpu_capability: torch_ext::cpu_capability(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        threads: tch::get_num_threads(),
        memory_bytes: kibibytes(&meminfo, "MemTotal:"),
        memory_available_bytes: kibibytes(&meminfo, "MemAvailable:"),
        cgroup_limit_bytes: cgroup_limit(),
        shm_bytes: shm_size(Path::new("/dev/shm")),
    }
}

/// Through NVML, so that GPUs are seen even by a CPU build.
fn gpus() -> Vec<Gpu> {
    let Ok(nvml) = nvml_wrapper::Nvml::init() else {
        return Vec::new();
    };
    let driver = nvml.sys_driver_version().unwrap_or_default();
    let count = nvml.device_count().unwrap_or(0);
    (0..count)
        .filter_map(|index| {
            let device = nvml.device_by_index(index).ok()?;
            Some(Gpu {
                index,
                name: device.name().ok()?,
                memory_bytes: device.memory_info().ok()?.total,
                driver: driver.clone(),
            })
        })
        .collect()
}

fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Version 2's file, then version 1's; "max" and version 1's huge number mean none.
fn cgroup_limit() -> Option<u64> {
    const FILES: [&str; 2] = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let read = |file: &&str| std::fs::read_to_string(file).ok();
    let text = FILES.iter().find_map(read)?;
    text.trim().parse().ok().filter(|limit| *limit < 1 << 60)
}

fn shm_size(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_blocks * stat.f_frsize)
}

/// What to do about a GPU that cannot be used.
fn advice(findings: &Findings) -> Option<&'static str> {
    if findings.cuda_available {
        return None;
    }
    Some(match (findings.cuda_build, findings.gpus.is_empty()) {
        (false, true) => "no GPU, and this trainer is built for CPUs",
        (false, false) => "there is a GPU, but this trainer is built for CPUs: use the CUDA image",
        (true, true) => {
            "no GPU: on Kubernetes check workers.gpu and the device plugin, with docker add \
             --gpus all"
        }
        (true, false) => {
            "the driver sees a GPU but libtorch cannot use it: the driver is too old for this \
             CUDA, or /dev/nvidia* is missing"
        }
    })
}

fn readable(findings: &Findings) -> String {
    let yes = |flag| if flag { "yes" } else { "no" };
    let gib = |bytes: Option<u64>| {
        bytes.map_or("unknown".to_owned(), |bytes| {
            format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
        })
    };
    let mut rows = vec![
        ("trainer", findings.trainer.clone()),
        ("libtorch", findings.libtorch.clone()),
        ("CUDA build", yes(findings.cuda_build).to_owned()),
        ("CUDA available", yes(findings.cuda_available).to_owned()),
    ];
    for gpu in &findings.gpus {
        let memory = gib(Some(gpu.memory_bytes));
        let text = format!(
            "{}: {}, {memory}, driver {}",
            gpu.index, gpu.name, gpu.driver
        );
        rows.push(("GPU", text));
    }
    let limit = findings.cgroup_limit_bytes;
    rows.extend([
        (
            "CPU",
            format!("{} cores, {}", findings.cpus, findings.cpu_capability),
        ),
        ("threads", findings.threads.to_string()),
        (
            "memory",
            format!(
                "{}, {} free",
                gib(findings.memory_bytes),
                gib(findings.memory_available_bytes)
            ),
        ),
        (
            "container limit",
            limit.map_or("none".to_owned(), |limit| gib(Some(limit))),
        ),
        ("/dev/shm", gib(findings.shm_bytes)),
    ]);
    let lines = rows
        .iter()
        .map(|(name, text)| format!("{name:<16}{text}\n"));
    let note = advice(findings).map(|advice| format!("{:<16}{advice}\n", "note"));
    lines.chain(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_examined() {
        let findings = examine();
        assert_eq!(findings.libtorch, "2.13.0");
        assert!(findings.memory_bytes > findings.memory_available_bytes);
        assert!(findings.cpus > 0 && findings.threads > 0);
        let text = readable(&findings);
        assert!(text.contains("libtorch        2.13.0"), "{text}");
        let json = serde_json::to_value(&findings).unwrap();
        assert!(json["cudaAvailable"].is_boolean(), "{json}");
    }

    #[test]
    fn each_way_of_having_no_gpu_has_its_remedy() {
        let gpu = Gpu {
            index: 0,
            name: "A".into(),
            memory_bytes: 1,
            driver: "1".into(),
        };
        let with = |cuda_build, gpus| Findings {
            cuda_build,
            gpus,
            ..Findings::default()
        };
        for (findings, part) in [
            (with(false, vec![]), "built for CPUs"),
            (with(false, vec![gpu.clone()]), "CUDA image"),
            (with(true, vec![]), "device plugin"),
            (with(true, vec![gpu]), "driver is too old"),
        ] {
            assert!(advice(&findings).unwrap().contains(part));
        }
        let available = Findings {
            cuda_available: true,
            ..Findings::default()
        };
        assert_eq!(advice(&available), None);
    }
}
