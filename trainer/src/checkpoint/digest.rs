//! sha256 of files and bytes, as lower-case hexadecimal.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

const BLOCK_BYTES: usize = 1 << 20;
/// Of [`sampled`].
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 64 << 10;

pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Reads the file through; returns its digest and its length in bytes.
pub(crate) fn of_file(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut length = 0;
    loop {
        let read = file.read(&mut block)?;
        let Some(bytes) = block.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok((hex(&hasher.finalize()), length));
        };
        hasher.update(bytes);
        length += read as u64;
    }
}

/// sha256 of a file's length and of blocks of it: its first and last, and others evenly between.
/// Tells two large files apart that are not made to deceive, in the time of a few reads.
pub(crate) fn sampled(path: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hasher = Sha256::new();
    hasher.update(length.to_le_bytes());
    let mut block = vec![0; SAMPLE_BYTES.min(length) as usize];
    let last = length - block.len() as u64;
    for sample in 0..SAMPLES {
        // In 128 bits: lengths times samples may not fit 64.
        let at = u128::from(last) * u128::from(sample) / u128::from(SAMPLES - 1);
        file.read_exact_at(&mut block, at as u64)?;
        hasher.update(&block);
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = vec![7u8; BLOCK_BYTES + 3];
        std::fs::write(file.path(), &bytes).unwrap();
        let (digest, length) = of_file(file.path()).unwrap();
        assert_eq!((digest, length), (of_bytes(&bytes), bytes.len() as u64));
        // sha256 of the empty string, FIPS 180-4.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of_bytes(b""), empty);
    }

    #[test]
    fn samples_cover_a_file_of_up_to_four_mebibytes_and_the_ends_of_any() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let digest_of = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).unwrap();
            sampled(file.path()).unwrap()
        };
        for length in [0usize, 1, 70_000, 4 << 20, 20 << 20] {
            let mut bytes = vec![7u8; length];
            let digest = digest_of(&bytes);
            assert_eq!(digest_of(&bytes), digest);
            let places: &[usize] = match length {
                0 => &[],
                1 => &[0],
                _ => &[0, length - 1],
            };
            for &at in places {
                bytes[at] ^= 1;
                assert_ne!(digest_of(&bytes), digest, "byte {at} of {length}");
                bytes[at] ^= 1;
            }
            bytes.push(7);
            assert_ne!(digest_of(&bytes), digest, "a byte more than {length}");
        }
        let mut bytes = vec![7u8; 4 << 20];
        let digest = digest_of(&bytes);
        bytes[2_000_000] ^= 1;
        assert_ne!(digest_of(&bytes), digest);
    }
}
