//! Answers in a separate file next to the rows.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use tokenformer_data::Tokenizer;
use tokenformer_tasks::{Options, Outcome, Request, Scored, Scorer, Task, evaluate};

/// The second choice is always the likelier one.
struct Second;

impl Scorer for Second {
    fn context(&self) -> usize {
        100
    }

    fn score(&mut self, requests: &[Request]) -> tokenformer_tasks::Result<Vec<Scored>> {
        let scored = |request: &Request| Scored {
            loglik: match request.targets().last() {
                Some(&last) if last == u32::from(b'2') => -1.0,
                _ => -2.0,
            },
            greedy: None,
        };
        Ok(requests.iter().map(scored).collect())
    }
}

/// The right answers and the accuracy of the rows in `dir`.
fn run(dir: &Path, limit: Option<usize>) -> Result<(Vec<usize>, f64), String> {
    let options = Options {
        tasks: vec![(Task::Piqa, dir.join("valid.jsonl"))],
        limit,
        model_hash: String::new(),
        precision: "f32".into(),
        device: "cpu".into(),
        program: "p".into(),
    };
    let stop = AtomicBool::new(false);
    let tokenizer = &Tokenizer::bytes();
    let ended = evaluate(&options, tokenizer, &mut Second, None, &mut |_| {}, &stop);
    match ended.map_err(|error| error.to_string())? {
        Outcome::Finished { results, samples } => Ok((
            samples.iter().map(|sample| sample.gold).collect(),
            results.tasks[0].metrics["acc"].value,
        )),
        Outcome::Stopped(progress) => panic!("{progress:?}"),
    }
}

#[test]
fn answers_beside_the_rows_belong_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |with_label: bool| {
        let row = |i: usize| {
            let mut row = json!({"goal": format!("g{i}"), "sol1": "1", "sol2": "2"});
            if with_label {
                row["label"] = 0.into();
            }
            format!("{row}\n")
        };
        fs::write(
            dir.path().join("valid.jsonl"),
            (0..4).map(row).collect::<String>(),
        )
    };
    let labels = |text: &str| fs::write(dir.path().join("valid-labels.lst"), text).unwrap();
    rows(false).unwrap();
    let message = run(dir.path(), None).unwrap_err();
    for part in ["rows without the key \"label\"", "valid-labels.lst"] {
        assert!(message.contains(part), "{message}");
    }
    labels("1\n0\n1\n1\n");
    assert_eq!(run(dir.path(), None), Ok((vec![1, 0, 1, 1], 0.75)));
    assert_eq!(run(dir.path(), Some(2)), Ok((vec![1, 0], 0.5)));
    labels("1\n0\n1\n");
    let message = run(dir.path(), None).unwrap_err();
    assert!(message.contains("another number of answers"), "{message}");
    labels("1\n0\n1\n1\n0\n");
    assert!(run(dir.path(), None).is_err() && run(dir.path(), Some(9)).is_err());
    assert!(run(dir.path(), Some(4)).is_ok());
    labels("1\n0\n2\n1\n");
    let message = run(dir.path(), None).unwrap_err();
    assert!(message.contains("from 0 to 1"), "{message}");
    // Rows that have answers keep them.
    rows(true).unwrap();
    assert_eq!(run(dir.path(), None), Ok((vec![0; 4], 0.0)));
}
