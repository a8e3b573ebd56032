//! Real text that is available offline: the sources of the crates in `Cargo.lock`.
//!
//! Anyone who built this program from source has them on the disk, so a first model can be trained without a download.
//! `Cargo.lock` pins their versions, so the text is the same each time. The chosen files are hand-written code and
//! documentation. Tables and generated bindings are left out, and the size of each crate is limited, so that no large
//! crate dominates.

mod choose;
mod packages;

use std::path::PathBuf;

use crate::corpus::Document;
use crate::error::{Error, Result};

/// Which crates to read, and how much of them.
#[derive(Debug, Clone)]
pub struct CrateSourcesOptions {
    /// The folder of `Cargo.toml` and `Cargo.lock`.
    pub manifest_dir: PathBuf,
    /// Most bytes of one crate; default 300 kB.
    pub max_crate_bytes: u64,
    /// Most bytes in all; default 16 MB. Large crates are cut first.
    pub max_total_bytes: u64,
}

impl CrateSourcesOptions {
    /// The defaults for the project in this folder.
    pub fn new(manifest_dir: PathBuf) -> Self {
        Self {
            manifest_dir,
            max_crate_bytes: 300_000,
            max_total_bytes: 16_000_000,
        }
    }
}

/// The chosen text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrateSources {
    /// One document per file, in the order of crates and paths; its source is
    /// `name-version/src/lib.rs`.
    pub documents: Vec<Document>,
    /// Statistics of each crate, sorted by name.
    pub crates: Vec<CrateStats>,
}

/// Statistics of one crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrateStats {
    /// Name of the crate.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Files taken.
    pub files: u64,
    /// Bytes taken.
    pub text_bytes: u64,
    /// Files skipped because they are too small, too large, tests, tables, generated or over the limit.
    pub skipped_files: u64,
}

/// Gets the crates from `cargo metadata` and reads the suitable ones of their files.
///
/// Only the newest version of each crate from registries and repositories is used, because the project's own code
/// changes often. `Cargo.lock` is not changed.
///
/// # Errors
/// `cargo` is missing or fails, or no crate has any suitable text.
pub fn crate_sources(options: &CrateSourcesOptions) -> Result<CrateSources> {
    let error = |reason: String| Error::CrateSources {
        manifest_dir: options.manifest_dir.clone(),
        reason,
    };
    let packages = packages::find(&options.manifest_dir).map_err(error)?;
    collect(packages, options)
}

fn collect(
    packages: Vec<packages::Package>,
    options: &CrateSourcesOptions,
) -> Result<CrateSources> {
    let candidates = packages
        .iter()
        .map(choose::candidates)
        .collect::<Result<Vec<_>>>()?;
    let sizes: Vec<u64> = candidates.iter().map(choose::Candidates::bytes).collect();
    let limit = choose::fair_limit(&sizes, options.max_crate_bytes, options.max_total_bytes);
    let mut sources = CrateSources {
        documents: Vec::new(),
        crates: Vec::new(),
    };
    for (package, candidates) in packages.into_iter().zip(candidates) {
        let mut stats = CrateStats {
            name: package.name,
            version: package.version,
            files: 0,
            text_bytes: 0,
            skipped_files: candidates.skipped,
        };
        for document in candidates.documents {
            let bytes = document.text.len() as u64;
            if stats.text_bytes + bytes > limit {
                stats.skipped_files += 1;
                continue;
            }
            stats.files += 1;
            stats.text_bytes += bytes;
            sources.documents.push(document);
        }
        if stats.files > 0 {
            sources.crates.push(stats);
        }
    }
    if sources.documents.is_empty() {
        return Err(Error::CrateSources {
            manifest_dir: options.manifest_dir.clone(),
            reason: "no crate from a registry has suitable files".into(),
        });
    }
    Ok(sources)
}

#[cfg(test)]
mod tests;
