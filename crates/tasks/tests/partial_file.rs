//! The file of finished questions: its owner, and when it is replaced or removed.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use tokenformer_data::Tokenizer;
use tokenformer_tasks::{Options, Outcome, Partial, Request, Scored, Scorer, Task, evaluate};

/// Gives every request the same score, and counts them.
struct Constant(usize);

impl Scorer for Constant {
    fn context(&self) -> usize {
        100
    }

    fn score(&mut self, requests: &[Request]) -> tokenformer_tasks::Result<Vec<Scored>> {
        self.0 += requests.len();
        let scored = Scored {
            loglik: -1.0,
            greedy: None,
        };
        Ok(vec![scored; requests.len()])
    }
}

/// Evaluates the first `limit` of three questions; how many were scored, and how many taken over.
fn run(dir: &Path, partial: &mut Partial, limit: Option<usize>) -> (usize, usize) {
    let row = |i: usize| json!({"goal": i.to_string(), "sol1": "a", "sol2": "b", "label": 0});
    let rows = (0..3).map(|i| format!("{}\n", row(i)));
    let path = dir.join("piqa.jsonl");
    fs::write(&path, rows.collect::<String>()).unwrap();
    let options = Options {
        tasks: vec![(Task::Piqa, path)],
        limit,
        model_hash: "a model".into(),
        precision: "f32".into(),
        device: "cpu".into(),
        program: "p".into(),
    };
    let mut scorer = Constant(0);
    let stop = AtomicBool::new(false);
    let tokenizer = &Tokenizer::bytes();
    let outcome = evaluate(
        &options,
        tokenizer,
        &mut scorer,
        Some(partial),
        &mut |_| {},
        &stop,
    );
    let Outcome::Finished { results, .. } = outcome.unwrap() else {
        panic!("nobody stopped it");
    };
    (scorer.0 / 2, results.taken_over)
}

#[test]
fn a_finished_evaluation_leaves_only_what_another_one_needs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache/tokenformer/eval.jsonl");
    let open = || Partial::open(&path, "p").unwrap();
    // All three are scored, and the evaluation ends without saying that it has finished, as by a kill.
    assert_eq!(run(dir.path(), &mut open(), None), (3, 0));
    // A short one finishes; what it did not use is still there for the long one.
    let mut partial = open();
    assert_eq!(run(dir.path(), &mut partial, Some(1)), (0, 1));
    partial.finish().unwrap();
    let mut partial = open();
    assert_eq!(run(dir.path(), &mut partial, None), (1, 2));
    partial.finish().unwrap();
    assert!(!path.exists());
}

#[test]
fn one_evaluation_at_a_time_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache/eval.jsonl");
    let first = Partial::open(&path, "p").unwrap();
    let message = Partial::open(&path, "p").unwrap_err().to_string();
    assert!(message.contains("another evaluation has it"), "{message}");
    drop(first);
    assert!(Partial::open(&path, "p").is_ok());
}

#[test]
fn another_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.jsonl");
    fs::write(&path, "{\"a\":1}\n").unwrap();
    let message = Partial::open(&path, "p").unwrap_err().to_string();
    assert!(
        message.contains("not a file of finished questions"),
        "{message}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":1}\n");
}

#[cfg(unix)]
#[test]
fn the_file_is_private_and_never_reached_through_a_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
    let refused = |name: &str, reason: &str| {
        let message = Partial::open(&at(name), "p").unwrap_err().to_string();
        assert!(message.contains(reason), "{name}: {message}");
    };
    drop(Partial::open(&at("cache/eval.jsonl"), "p").unwrap());
    assert_eq!((mode("cache"), mode("cache/eval.jsonl")), (0o700, 0o600));

    // To a file that is not there, one that is, and one of finished questions.
    symlink(at("victim"), at("cache/dangling.jsonl")).unwrap();
    refused("cache/dangling.jsonl", "not a plain file");
    assert!(!at("victim").exists());
    fs::write(at("kept"), "kept").unwrap();
    symlink(at("kept"), at("cache/link.jsonl")).unwrap();
    refused("cache/link.jsonl", "not a plain file");
    fs::hard_link(at("cache/eval.jsonl"), at("cache/second.jsonl")).unwrap();
    refused("cache/second.jsonl", "it is a link");
    symlink(at("cache"), at("linked")).unwrap();
    refused("linked/eval.jsonl", "not a folder");
    assert_eq!(fs::read_to_string(at("kept")).unwrap(), "kept");

    let open_to_others = |name: &str, mode| {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::remove_file(at("cache/second.jsonl")).unwrap();
    open_to_others("cache/eval.jsonl", 0o666);
    refused("cache/eval.jsonl", "other users may write it");
    open_to_others("cache/eval.jsonl", 0o600);
    open_to_others("cache", 0o777);
    refused("cache/eval.jsonl", "other users may write it");
    open_to_others("cache", 0o700);
    assert!(Partial::open(&at("cache/eval.jsonl"), "p").is_ok());
}
