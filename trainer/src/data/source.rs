//! Files of records: which lines there are, and reading one of them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vlft_crds::dataset::DatasetFormat;

use super::formats::{self, Wording};
use super::paths::ImageRoots;
use super::record::{Place, Record};
use crate::error::{Error, Result};

/// The file that a dataset folder keeps its records in.
const METADATA: &str = "metadata.jsonl";
/// A line longer than this is refused, bytes.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Where records come from and how they are worded.
#[derive(Debug, Clone)]
pub struct DatasetOptions {
    pub sources: Vec<SourceOptions>,
    /// Absent means: detect it from each source's first record.
    pub format: Option<DatasetFormat>,
    pub wording: Wording,
}

/// One folder or file.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Folder with metadata.jsonl, or a jsonl file.
    pub path: PathBuf,
    /// Folder that image paths are resolved against first.
    pub image_root: Option<PathBuf>,
}

/// The records of all sources, one after the other. Holds an index of lines, no records; reading
/// is by position, so threads share it.
#[derive(Debug)]
pub struct Dataset {
    sources: Vec<Source>,
    wording: Wording,
}

#[derive(Debug)]
struct Source {
    path: Arc<Path>,
    file: File,
    lines: Vec<Line>,
    roots: ImageRoots,
    format: DatasetFormat,
    /// sha256 of the file.
    digest: String,
}

/// Where a line that is not blank lies in its file.
#[derive(Debug, Clone, Copy)]
struct Line {
    offset: u64,
    bytes: u32,
    /// Counted from 1, blank lines included.
    number: u32,
}

/// Something read from a line, with the line and the files of its images.
#[derive(Debug, Clone)]
pub struct Located<T> {
    pub value: T,
    pub place: Place,
    /// Canonical paths, in the order of the record's images.
    pub images: Vec<PathBuf>,
}

impl<T> Located<T> {
    /// A data error at this line.
    pub fn fault(&self, message: impl std::fmt::Display) -> Error {
        Error::Data(format!("{}: {message}", self.place))
    }

    /// The same error with this line's place before it.
    pub fn at(&self, error: Error) -> Error {
        match error {
            Error::Data(message) => self.fault(message),
            Error::User(message) => Error::User(format!("{}: {message}", self.place)),
            other => other,
        }
    }
}

impl Dataset {
    /// Opens all sources and indexes their lines. A data error if a source is missing or empty.
    pub fn open(options: &DatasetOptions) -> Result<Self> {
        let open = |source| Source::open(source, options.format);
        Ok(Self {
            sources: options.sources.iter().map(open).collect::<Result<_>>()?,
            wording: options.wording.clone(),
        })
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.sources.iter().map(|source| source.lines.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// sha256 of each source's file of records. Images are not read for it.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.digest.as_str())
    }

    /// Reads one record; `index` counts through all sources. Errors name file and line.
    pub fn record(&self, index: usize) -> Result<Located<Record>> {
        let (source, line) = self.find(index)?;
        source.record(line, &self.wording)
    }

    /// File and line of a record.
    pub fn place(&self, index: usize) -> Result<Place> {
        let (source, line) = self.find(index)?;
        Ok(source.place(line))
    }

    fn find(&self, index: usize) -> Result<(&Source, Line)> {
        let mut left = index;
        for source in &self.sources {
            match source.lines.get(left) {
                Some(line) => return Ok((source, *line)),
                None => left -= source.lines.len(),
            }
        }
        Err(Error::Bug(format!(
            "record {index} past the end of the dataset"
        )))
    }

    /// All records in file order.
    pub fn records(&self) -> impl Iterator<Item = Result<Located<Record>>> {
        (0..self.len()).map(|index| self.record(index))
    }
}

impl Source {
    fn open(options: &SourceOptions, format: Option<DatasetFormat>) -> Result<Self> {
        let path = metadata_file(&options.path)?;
        let file = File::open(&path)
            .map_err(|error| Error::Data(format!("{}: {error}", path.display())))?;
        let (lines, digest) = index_lines(&file, &path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let roots = ImageRoots::open(
            options.image_root.as_deref(),
            folder.unwrap_or(Path::new(".")),
        )?;
        let mut source = Self {
            path: path.into(),
            file,
            lines,
            roots,
            format: format.unwrap_or(DatasetFormat::ImageText),
            digest,
        };
        let Some(first) = source.lines.first().copied() else {
            return Err(Error::Data(format!(
                "{}: has no records; write one JSON object per line",
                source.path.display()
            )));
        };
        if format.is_none() {
            let detected = formats::detect_format(&source.text(first)?);
            source.format = detected.map_err(|fault| source.fault(first, fault))?;
        }
        Ok(source)
    }

    fn record(&self, line: Line, wording: &Wording) -> Result<Located<Record>> {
        let text = self.text(line)?;
        let record = formats::parse_record(&text, self.format, wording);
        let value = record.map_err(|fault| self.fault(line, fault))?;
        let images = value.images.iter().map(|image| self.roots.resolve(image));
        let images = images.collect::<Result<_, String>>();
        Ok(Located {
            images: images.map_err(|fault| self.fault(line, fault))?,
            place: self.place(line),
            value,
        })
    }

    fn text(&self, line: Line) -> Result<String> {
        let mut bytes = vec![0; line.bytes as usize];
        self.file
            .read_exact_at(&mut bytes, line.offset)
            .map_err(|error| Error::Storage(format!("{}: {error}", self.place(line))))?;
        String::from_utf8(bytes)
            .map_err(|_| self.fault(line, "not UTF-8; save the file in that encoding"))
    }

    fn place(&self, line: Line) -> Place {
        Place {
            file: Arc::clone(&self.path),
            line: line.number,
        }
    }

    fn fault(&self, line: Line, message: impl std::fmt::Display) -> Error {
        Error::Data(format!("{}: {message}", self.place(line)))
    }
}

/// The file with the records: the path itself, or the folder's metadata.jsonl.
fn metadata_file(path: &Path) -> Result<PathBuf> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        Error::Data(format!(
            "dataset {}: {error}; name a folder with {METADATA} or a jsonl file",
            path.display()
        ))
    })?;
    if metadata.is_file() {
        return Ok(path.to_owned());
    }
    if !metadata.is_dir() {
        return Err(Error::Data(format!(
            "dataset {}: is neither file nor folder; name a folder with {METADATA} or a jsonl file",
            path.display()
        )));
    }
    let file = path.join(METADATA);
    if file.is_file() {
        return Ok(file);
    }
    Err(Error::Data(format!(
        "dataset {}: the folder has no {METADATA}; name the folder that has it, or a jsonl file",
        path.display()
    )))
}

/// One pass over the file: its lines, blank ones and a byte order mark left out, and its sha256.
fn index_lines(file: &File, path: &Path) -> Result<(Vec<Line>, String)> {
    let failed = |error: std::io::Error| Error::Storage(format!("{}: {error}", path.display()));
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut lines = Vec::new();
    let (mut offset, mut number) = (0_u64, 0_u32);
    let mut bytes = Vec::new();
    let mut hasher = Sha256::new();
    loop {
        bytes.clear();
        let read = read_line(&mut reader, &mut bytes).map_err(failed)?;
        if read == 0 {
            return Ok((lines, format!("{:x}", hasher.finalize())));
        }
        hasher.update(&bytes);
        number = number.saturating_add(1);
        if read > MAX_LINE_BYTES {
            return Err(Error::Data(format!(
                "{}:{number}: the line is longer than {MAX_LINE_BYTES} bytes; write one JSON \
                 object per line",
                path.display()
            )));
        }
        let marked = if number == 1 {
            bytes.strip_prefix(b"\xef\xbb\xbf")
        } else {
            None
        };
        let content = marked.unwrap_or(&bytes);
        let trimmed = content.trim_ascii_end();
        if !trimmed.trim_ascii_start().is_empty() {
            lines.push(Line {
                offset: offset + (bytes.len() - content.len()) as u64,
                bytes: trimmed.len() as u32,
                number,
            });
        }
        offset += read;
    }
}

/// Reads up to a line's end, or just past the limit; returns the bytes read.
fn read_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> std::io::Result<u64> {
    let read = std::io::Read::take(reader, MAX_LINE_BYTES + 1).read_until(b'\n', bytes)?;
    Ok(read as u64)
}
