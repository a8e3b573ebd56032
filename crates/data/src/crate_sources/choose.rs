//! Chooses the files of a crate that are suitable as training text.

use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use super::packages::Package;
use crate::corpus::Document;
use crate::error::{Error, Result};
use crate::text::prefix;

const MIN_FILE_BYTES: u64 = 1_000;
const MAX_FILE_BYTES: u64 = 200_000;

/// The suitable files of a crate, in the order of their paths.
pub(super) struct Candidates {
    pub documents: Vec<Document>,
    pub skipped: u64,
}

impl Candidates {
    pub(super) fn bytes(&self) -> u64 {
        self.documents.iter().map(|d| d.text.len() as u64).sum()
    }
}

/// Reads the `.rs` files under `src` that look hand-written.
pub(super) fn candidates(package: &Package) -> Result<Candidates> {
    let mut found = Candidates {
        documents: Vec::new(),
        skipped: 0,
    };
    let src = package.dir.join("src");
    if is_binding_crate(&package.name) || !src.is_dir() {
        return Ok(found);
    }
    for entry in WalkDir::new(&src).sort_by_file_name() {
        let entry = entry.map_err(|error| Error::io("read", &src)(error.into()))?;
        let path = entry.path();
        if !entry.file_type().is_file() || path.extension().is_none_or(|kind| kind != "rs") {
            continue;
        }
        let size = entry
            .metadata()
            .map_err(|error| Error::io("read", path)(error.into()))?
            .len();
        let inside = path.strip_prefix(&package.dir).unwrap_or(path);
        if !(MIN_FILE_BYTES..=MAX_FILE_BYTES).contains(&size) || is_side_file(inside) {
            found.skipped += 1;
            continue;
        }
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        match String::from_utf8(bytes) {
            Ok(text) if is_prose(&text) => found.documents.push(Document {
                source: source(package, inside),
                text,
            }),
            _ => found.skipped += 1,
        }
    }
    Ok(found)
}

/// `name-version/src/lib.rs`, with `/` on every system.
fn source(package: &Package, inside: &Path) -> String {
    let parts: Vec<_> = inside
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    format!("{}-{}/{}", package.name, package.version, parts.join("/"))
}

/// Whether a crate is a list of bindings to an operating system or a C library.
fn is_binding_crate(name: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "windows",
        "winapi",
        "libc",
        "linux-raw",
        "r-efi",
        "wasi",
        "wit-bindgen",
        "objc2",
    ];
    name.ends_with("-sys") || name.ends_with("_sys") || PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Whether a file holds tests or tables, judged by its name.
fn is_side_file(inside: &Path) -> bool {
    inside.iter().any(|part| {
        let part = part.to_string_lossy();
        let stem = part.strip_suffix(".rs").unwrap_or(&part);
        let words = || stem.split(['_', '-']);
        words().any(|word| {
            matches!(
                word,
                "test"
                    | "tests"
                    | "bench"
                    | "benches"
                    | "table"
                    | "tables"
                    | "generated"
                    | "bindings"
            )
        })
    })
}

/// Whether a text is code and documentation instead of data: few digits, lines of usual length, not generated.
pub(super) fn is_prose(text: &str) -> bool {
    const MARKS: [&str; 4] = [
        "@generated",
        "automatically generated",
        "auto-generated",
        "DO NOT EDIT",
    ];
    let head = prefix(text, 2_000);
    if MARKS.iter().any(|mark| head.contains(mark)) {
        return false;
    }
    let (mut visible, mut digits, mut foreign) = (0_usize, 0_usize, 0_usize);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        visible += 1;
        digits += usize::from(byte.is_ascii_digit());
        foreign += usize::from(!byte.is_ascii());
    }
    let (mut lines, mut longest, mut constants) = (0_usize, 0, 0);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        lines += 1;
        longest = longest.max(line.len());
        let item = line.trim_start().trim_start_matches("pub ");
        constants += usize::from(item.starts_with("const ") && line.contains(": "));
    }
    longest <= 300
        && digits * 100 <= visible * 8
        && foreign * 100 <= visible * 3
        && constants * 100 <= lines * 30
}

/// The bytes each crate may contribute so that the total stays below `max_total`. What small crates leave unused goes
/// to larger ones.
pub(super) fn fair_limit(sizes: &[u64], max_crate: u64, max_total: u64) -> u64 {
    let mut sizes: Vec<u64> = sizes.iter().map(|&size| size.min(max_crate)).collect();
    sizes.sort_unstable();
    let mut left = max_total;
    for (index, &size) in sizes.iter().enumerate() {
        let share = left / (sizes.len() - index) as u64;
        if size > share {
            return share;
        }
        left -= size;
    }
    max_crate
}
