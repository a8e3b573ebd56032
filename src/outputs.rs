//! Checks what may be overwritten: existing files are replaced only on request.

use crate::usage;
use std::fs;
use std::path::{Path, PathBuf};
use tokenformer_base::files::is_same_file;
use tokenformer_store::{MANIFEST_NAME, Manifest};
use tokenformer_train::{Error, Result};

/// The description of a dataset folder.
const DATASET: &str = "dataset.json";
/// The lock of a run.
const LOCK: &str = "run.lock";
/// The folder of checkpoints in a run.
const CHECKPOINTS: &str = "checkpoints";
/// What a run writes besides its checkpoints.
const RUN_FILES: [&str; 8] = [
    "config.toml",
    "metrics.jsonl",
    "metrics.csv",
    "ranks.csv",
    "report.html",
    "plots",
    "latest",
    "best",
];

/// Returns an error for a folder that will be written, unless it is empty, or `force` is given and this program wrote
/// everything in it, as one of `kinds`. A folder that is an input, holds one or lies in one is never replaced.
///
/// # Errors
/// [`tokenformer_train::Error::Recipe`] for the flag `flag`.
pub fn folder(flag: &str, to: &Path, force: bool, kinds: &[&str], inputs: &[&Path]) -> Result<()> {
    refuse_inputs(flag, to, inputs)?;
    let refuse = |got: String, help: &str| {
        let expected = "a new or an empty folder";
        let got = format!("{}, {got}", to.display());
        Err(usage(flag, expected, got, help))
    };
    let first = match fs::read_dir(to) {
        Ok(mut entries) => match entries.next() {
            None => return Ok(()),
            Some(entry) => entry.map(|entry| entry.file_name()).unwrap_or_default(),
        },
        Err(_) if !to.exists() => return Ok(()),
        Err(_) => return refuse("which is no folder".into(), "choose another name"),
    };
    match Manifest::read(to) {
        Ok(manifest) if !kinds.contains(&&*manifest.kind) => refuse(
            format!("which holds a {}", manifest.kind),
            "choose another folder; --force replaces only what this command writes",
        ),
        Ok(_) if force => Ok(()),
        Ok(manifest) => refuse(
            format!("which holds a {}", manifest.kind),
            "choose another folder, or replace what is there with --force",
        ),
        Err(_) => refuse(
            format!("which holds {first:?}"),
            match force {
                true => {
                    "choose another folder; --force replaces what this program wrote as a whole, nothing else"
                }
                false => "choose another folder",
            },
        ),
    }
}

/// Returns an error for output files that exist, unless `force` is given, and in the cases of [`file()`].
///
/// # Errors
/// [`tokenformer_train::Error::Recipe`] for the flag `flag`.
pub fn new_files(flag: &str, files: &[PathBuf], force: bool, inputs: &[&Path]) -> Result<()> {
    for path in files {
        file(flag, path, inputs)?;
        if !force && path.exists() {
            let got = format!("{}, which is there", path.display());
            let help = "choose another name, or replace it with --force";
            return Err(usage(flag, "a new file", got, help));
        }
    }
    Ok(())
}

/// Returns an error for an output file that is an input, exists inside an input folder other than a run, or belongs to a
/// model, dataset or run.
///
/// # Errors
/// [`tokenformer_train::Error::Recipe`] for the flag `flag`.
pub fn file(flag: &str, to: &Path, inputs: &[&Path]) -> Result<()> {
    refuse_inputs(flag, to, inputs)?;
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Files are replaced by renaming, which would turn a device or a link into a regular file.
    if fs::symlink_metadata(to).is_ok_and(|found| !found.is_file()) {
        let got = format!("{}, which is no plain file", to.display());
        return Err(usage(flag, "a file to write", got, "choose another name"));
    }
    let name = to.file_name().unwrap_or_default();
    let found = if folder.join(MANIFEST_NAME).exists() {
        "a model or checkpoint, whose files are all listed"
    } else if folder.join(DATASET).exists() {
        "a dataset"
    } else if is_run(folder) && RUN_FILES.iter().any(|file| name == *file) {
        "a run, which has a file of this name"
    } else {
        return Ok(());
    };
    let got = format!("{} in {found}", to.display());
    Err(usage(
        flag,
        "a file of its own",
        got,
        "choose another place",
    ))
}

/// Returns an error for a run directory whose files would replace others.
///
/// # Errors
/// [`tokenformer_train::Error::Recipe`] for `--out`.
pub fn run_folder(out: &Path) -> Result<()> {
    let taken = [MANIFEST_NAME, DATASET].into_iter().chain(RUN_FILES);
    let found = taken.into_iter().find(|name| out.join(name).exists());
    match found {
        Some(name) if !is_run(out) => {
            let got = format!("{}, which holds {name:?} and no run", out.display());
            Err(usage(
                "--out",
                "a run, or a folder without files of its own",
                got,
                "choose another folder",
            ))
        }
        _ => Ok(()),
    }
}

/// Makes a run directory for a run that keeps its dataset in the folder `data`.
///
/// # Errors
/// As [`run_folder`]; and [`tokenformer_train::Error::Recipe`] for `--out` if there is such a folder, but no run: it is somebody's, and
/// would be replaced.
pub fn run_folder_with_data(out: &Path, data: &str) -> Result<()> {
    run_folder(out)?;
    if !is_run(out) && out.join(data).exists() {
        let got = format!("{}, which holds {data:?} and no run", out.display());
        let help = "choose another folder; the data would be replaced";
        return Err(usage("--out", "a run, or a folder without data", got, help));
    }
    // The folder now counts as a run, so a stopped demo may make its data again.
    let checkpoints = out.join(CHECKPOINTS);
    fs::create_dir_all(&checkpoints).map_err(|source| Error::Io {
        action: "make the folder of checkpoints",
        path: checkpoints,
        source,
        help: "check the permissions, or choose another --out",
    })
}

/// A run has a lock, then a folder of checkpoints, before it has anything else; the lock may be left behind where a
/// run is copied.
fn is_run(folder: &Path) -> bool {
    folder.join(LOCK).exists() || folder.join(CHECKPOINTS).is_dir()
}

fn refuse_inputs(flag: &str, to: &Path, inputs: &[&Path]) -> Result<()> {
    let refuse = |got: String| -> Result<()> {
        let help = "choose another name; what is read stays as it is";
        Err(usage(flag, "another place than what is read", got, help))
    };
    for input in inputs {
        if is_same_file(to, input) {
            return refuse(format!("{}, which is read", to.display()));
        }
        let (Ok(target), Ok(read)) = (to.canonicalize(), input.canonicalize()) else {
            continue;
        };
        if read.starts_with(&target) {
            let (to, input) = (to.display(), input.display());
            return refuse(format!("{to}, which holds {input}, which is read"));
        }
        let is_own_file = target.is_file() && is_run(input);
        if target.starts_with(&read) && !is_own_file && !is_empty_folder(&target) {
            let what = if target.is_file() { "file" } else { "folder" };
            return refuse(format!("a {what} in {}, which is read", input.display()));
        }
    }
    Ok(())
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
