//! The crates of a project, as listed by `cargo metadata`.
//!
//! Format: <https://doc.rust-lang.org/cargo/commands/cargo-metadata.html>.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// A crate from outside the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub name: String,
    pub version: String,
    /// The folder with its `Cargo.toml`.
    pub dir: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<RawPackage>,
}

#[derive(Deserialize)]
struct RawPackage {
    name: String,
    version: String,
    /// `None` for crates of the project itself.
    source: Option<String>,
    manifest_path: PathBuf,
}

/// Calls cargo, first without a network. A crate that this machine has never needed is then missing, and cargo
/// downloads it if it can.
pub(super) fn find(manifest_dir: &Path) -> Result<Vec<Package>, String> {
    let host = host()?;
    let json =
        metadata(manifest_dir, &host, true).or_else(|_| metadata(manifest_dir, &host, false))?;
    parse(&json)
}

/// The platform of this machine, which excludes crates for other platforms.
fn host() -> Result<String, String> {
    let version = run(Command::new("rustc").arg("-vV"))?;
    String::from_utf8_lossy(&version)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .ok_or_else(|| "`rustc -vV` names no host".to_owned())
}

fn metadata(manifest_dir: &Path, host: &str, offline: bool) -> Result<Vec<u8>, String> {
    let mut command = Command::new("cargo");
    command
        .args(["metadata", "--format-version=1", "--locked", "--quiet"])
        .arg(format!("--filter-platform={host}"))
        .arg("--manifest-path")
        .arg(manifest_dir.join("Cargo.toml"));
    if offline {
        command.arg("--offline");
    }
    run(&mut command)
}

fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run `{name}`: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let first_line = message.lines().find(|line| !line.trim().is_empty());
    Err(format!(
        "`{name}` failed: {}",
        first_line.unwrap_or("no message")
    ))
}

/// The crates from outside the project, the newest version of each, sorted by name.
pub(super) fn parse(json: &[u8]) -> Result<Vec<Package>, String> {
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|error| format!("`cargo metadata` gave something unexpected: {error}"))?;
    let mut packages: Vec<Package> = metadata
        .packages
        .into_iter()
        .filter(|package| package.source.is_some())
        .filter_map(|package| {
            Some(Package {
                dir: package.manifest_path.parent()?.to_owned(),
                name: package.name,
                version: package.version,
            })
        })
        .collect();
    let newest_first = |package: &Package| std::cmp::Reverse(version_key(&package.version));
    packages.sort_by(|a, b| {
        (&a.name, newest_first(a), &a.version).cmp(&(&b.name, newest_first(b), &b.version))
    });
    packages.dedup_by(|later, first| later.name == first.name);
    Ok(packages)
}

/// The numbers of a version, and whether it is a release instead of a pre-release.
fn version_key(version: &str) -> (Vec<u64>, bool) {
    let version = version.split('+').next().unwrap_or(version);
    let (numbers, candidate) = match version.split_once('-') {
        Some((numbers, candidate)) => (numbers, Some(candidate)),
        None => (version, None),
    };
    let numbers = numbers.split('.').map(|n| n.parse().unwrap_or(0));
    (numbers.collect(), candidate.is_none())
}
