//! Memory of this process, as the kernel counts it.

/// Bytes; 0 where the kernel does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    pub resident: u64,
    /// Most resident bytes since the process began.
    pub peak: u64,
}

/// Reads `/proc/self/status`.
pub fn process_memory() -> ProcessMemory {
    std::fs::read_to_string("/proc/self/status")
        .map(|status| parse(&status))
        .unwrap_or_default()
}

fn parse(status: &str) -> ProcessMemory {
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    ProcessMemory {
        resident: bytes("VmRSS:"),
        peak: bytes("VmHWM:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kibibytes_of_the_two_lines() {
        let status = "Name:\ttrainer\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let expected = ProcessMemory {
            resident: 1 << 20,
            peak: 2 << 20,
        };
        assert_eq!(parse(status), expected);
        assert_eq!(parse("nothing"), ProcessMemory::default());
    }

    #[test]
    fn grows_with_what_is_allocated() {
        let before = process_memory();
        let block = vec![1u8; 64 << 20];
        let after = process_memory();
        assert!(
            after.resident >= before.resident + (60 << 20),
            "{before:?} {after:?}"
        );
        assert!(after.peak >= after.resident);
        assert_eq!(
            block.iter().map(|&byte| u64::from(byte)).sum::<u64>(),
            64 << 20
        );
    }
}
