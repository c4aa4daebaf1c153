//! The names of a log's files, oldest first, and reading them line by line without ever holding
//! more than one line.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A line longer than this is none of ours; bounds memory when a stranger's file is read.
const LONGEST_LINE: u64 = 1 << 20;

/// A path with something behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The name of the `n`th rotated file; the first is the youngest.
pub fn rotated_name(log: &Path, n: u32) -> PathBuf {
    with_suffix(log, &format!(".{n}"))
}

/// One file of a log, open.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl LogFile {
    /// Which file this is, whatever its name is now.
    pub(super) fn inode(&self) -> io::Result<(u64, u64)> {
        self.file.metadata().map(|meta| (meta.dev(), meta.ino()))
    }
}

/// Opens all files of a log, oldest first. Rotation while they are opened is noticed, and the
/// opening repeated.
pub(super) fn open_all(log: &Path) -> io::Result<Vec<LogFile>> {
    for _ in 0..8 {
        let files = open_once(log)?;
        if still_so(&files)? {
            return Ok(files);
        }
    }
    Err(io::Error::other("the log is rotated faster than it can be opened"))
}

fn open_once(log: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for n in rotated(log)? {
        files.extend(open_if_there(rotated_name(log, n))?);
    }
    files.extend(open_if_there(log.to_owned())?);
    Ok(files)
}

/// Numbers of the rotated files that are there, oldest (highest) first. A crash during rotation
/// may leave a number out.
pub(super) fn rotated(log: &Path) -> io::Result<Vec<u32>> {
    let directory = match log.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(prefix) = log.file_name().map(|name| with_suffix(Path::new(name), ".")) else {
        return Ok(Vec::new());
    };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name.as_encoded_bytes().strip_prefix(prefix.as_os_str().as_encoded_bytes());
        let number =
            digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
        // "audit.log.01" is not ours.
        numbers.extend(number.filter(|n| *n > 0 && name == *rotated_file_name(log, *n)));
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

fn rotated_file_name(log: &Path, n: u32) -> OsString {
    rotated_name(log, n).file_name().unwrap_or_default().to_owned()
}

fn open_if_there(path: PathBuf) -> io::Result<Option<LogFile>> {
    match File::open(&path) {
        Ok(file) => Ok(Some(LogFile { path, file })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn still_so(files: &[LogFile]) -> io::Result<bool> {
    for file in files {
        let named = fs::metadata(&file.path).map(|meta| (meta.dev(), meta.ino()));
        if named.ok() != Some(file.inode()?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads lines, and tells a last one without its newline apart.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    buffer: Vec<u8>,
}

/// One line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// With its newline (or a piece of something too long to be one of ours).
    Whole(&'a [u8]),
    /// The last of the file, whose newline is missing.
    Partial(&'a [u8]),
}

impl Lines {
    pub(super) fn new(file: File) -> Self {
        Self { reader: BufReader::with_capacity(1 << 16, file), buffer: Vec::new() }
    }

    /// The next line; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let read = (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut self.buffer)?;
        Ok(match self.buffer.as_slice() {
            [] => None,
            [whole @ .., b'\n'] => Some(Line::Whole(whole)),
            piece if u64::try_from(read).is_ok_and(|read| read == LONGEST_LINE) => {
                Some(Line::Whole(piece))
            }
            partial => Some(Line::Partial(partial)),
        })
    }
}
