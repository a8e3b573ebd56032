//! A dataset whose making was killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use tokenformer_data::{CorpusOptions, DocumentSource, PrepareOptions, Stage, TokenizerSpec};

const DOCUMENTS: usize = 600;
/// Tells this program to be the one that is killed, and in which folder it works.
const KILLED: &str = "TOKENFORMER_TEST_KILLED";

fn write_corpus(folder: &Path, documents: usize) {
    let line = |n: usize| {
        let text = format!("Document {n}. {}", "Some words again, ".repeat(n % 9));
        serde_json::json!({"text": text}).to_string() + "\n"
    };
    fs::write(
        folder.join("corpus.jsonl"),
        (0..documents).map(line).collect::<String>(),
    )
    .unwrap();
}

fn options(folder: &Path, out: &str) -> PrepareOptions {
    let inputs = vec![folder.join("corpus.jsonl")];
    let source = DocumentSource::Paths(CorpusOptions::new(inputs));
    let mut options = PrepareOptions::new(source, folder.join(out));
    options.tokenizer = TokenizerSpec::TrainBpe { vocab_size: 300 };
    options.save_every_bytes = 2000;
    options
}

/// Prepares, and tells how many documents were read over.
fn prepare(options: &PrepareOptions) -> usize {
    let mut skipped = 0;
    tokenformer_data::prepare(options, |progress| {
        skipped += usize::from(progress.stage == Stage::Skip);
    })
    .unwrap();
    skipped
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            (name.to_owned(), fs::read(&path).unwrap())
        })
        .collect()
}

/// Runs this test alone in another program, which ends itself in the middle of its work.
fn kill_one(folder: &Path) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_run_is_gone_on_with", "--nocapture"])
        .env(KILLED, folder)
        .output()
        .unwrap()
        .status;
    assert!(!status.success(), "the program was to end in the middle");
    assert!(folder.join("killed/.partial-note.json").exists());
    assert!(!folder.join("killed/dataset.json").exists());
}

#[test]
fn a_killed_run_is_gone_on_with() {
    if let Some(folder) = std::env::var_os(KILLED) {
        let mut encoded = 0;
        let _ = tokenformer_data::prepare(&options(Path::new(&folder), "killed"), |progress| {
            encoded += usize::from(progress.stage == Stage::Encode);
            if encoded > DOCUMENTS / 2 {
                // No clean-up runs, as when the power fails.
                std::process::abort();
            }
        });
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    write_corpus(dir.path(), DOCUMENTS);
    assert_eq!(prepare(&options(dir.path(), "whole")), 0);
    let whole = files(&dir.path().join("whole"));
    assert_eq!(whole.len(), 4, "{:?}", whole.keys());

    kill_one(dir.path());
    let skipped = prepare(&options(dir.path(), "killed"));
    assert!(
        (DOCUMENTS / 4..=DOCUMENTS / 2).contains(&skipped),
        "{skipped}"
    );
    assert!(files(&dir.path().join("killed")) == whole);
}

#[test]
fn what_belongs_to_other_text_or_is_damaged_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("killed");
    for damage in ["corpus", "tokens", "starts", "note"] {
        write_corpus(dir.path(), DOCUMENTS);
        kill_one(dir.path());
        let cut = |name: &str| {
            let bytes = fs::read(out.join(name)).unwrap();
            fs::write(out.join(name), &bytes[..bytes.len() / 2]).unwrap();
        };
        match damage {
            "corpus" => write_corpus(dir.path(), DOCUMENTS + 1),
            "tokens" => cut(".partial-train.tokens"),
            "starts" => cut(".partial-train.starts"),
            _ => cut(".partial-note.json"),
        }
        assert_eq!(prepare(&options(dir.path(), "killed")), 0, "{damage}");
        let whole = dir.path().join(format!("whole-{damage}"));
        prepare(&options(dir.path(), &format!("whole-{damage}")));
        assert!(files(&out) == files(&whole), "{damage}");
        fs::remove_dir_all(&out).unwrap();
    }
}
