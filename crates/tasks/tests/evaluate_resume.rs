//! The whole way with a scorer that is easy to predict: results, samples, stopping and going on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokenformer_data::Tokenizer;
use tokenformer_tasks::results::write_samples;
use tokenformer_tasks::{
    Options, Outcome, Partial, Progress, Request, Results, Sample, Scored, Scorer, Task, evaluate,
};

/// A target's log-probability is minus its byte over a hundred; the word is right if it ends in `s`.
struct Bytes {
    context: usize,
    scored: usize,
    stop_after: Option<usize>,
    bad: bool,
}

impl Default for Bytes {
    fn default() -> Self {
        Self {
            context: 40,
            scored: 0,
            stop_after: None,
            bad: false,
        }
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

impl Scorer for Bytes {
    fn context(&self) -> usize {
        self.context
    }

    fn score(&mut self, requests: &[Request]) -> tokenformer_tasks::Result<Vec<Scored>> {
        self.scored += requests.len();
        if self.stop_after.is_some_and(|n| self.scored >= n) {
            STOP.store(true, Ordering::Relaxed);
        }
        let score = |request: &Request| Scored {
            loglik: match self.bad {
                true => f64::NAN,
                false => request
                    .targets()
                    .iter()
                    .map(|&t| -f64::from(t) / 100.0)
                    .sum(),
            },
            greedy: (request.greedy).then(|| request.targets().last() == Some(&u32::from(b's'))),
        };
        Ok(requests.iter().map(score).collect())
    }
}

fn write(dir: &Path, name: &str, rows: &[serde_json::Value]) -> PathBuf {
    let path = dir.join(name);
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&path, text).unwrap();
    path
}

/// A thousand questions of three tasks.
fn options(dir: &Path) -> Options {
    let piqa = [
        json!({"goal": "g", "choices": ["aa", "aaa"], "gold": 0}),
        json!({"goal": "g", "choices": ["zz", "aaaa"], "gold": 1}),
    ];
    let words: Vec<_> = (0..600)
        .map(|i| json!({"text": format!("{} {}", "x".repeat(i % 60), ["cats", "dog"][i % 2])}))
        .collect();
    let arc: Vec<_> = (0..398)
        .map(|i| json!({"ctx": format!("c{i}"), "choices": ["a", "b", "c"], "gold": i % 3}))
        .collect();
    Options {
        tasks: vec![
            (Task::Piqa, write(dir, "piqa_val.jsonl", &piqa)),
            (Task::LambadaOpenai, write(dir, "lambada.jsonl", &words)),
            (Task::ArcEasy, write(dir, "arc.jsonl", &arc)),
        ],
        limit: None,
        model_hash: "a model".into(),
        precision: "f32".into(),
        device: "cpu".into(),
        program: "a program".into(),
    }
}

fn run(options: &Options, scorer: &mut Bytes) -> tokenformer_tasks::Result<Outcome> {
    STOP.store(false, Ordering::Relaxed);
    let tokenizer = &Tokenizer::bytes();
    evaluate(options, tokenizer, scorer, None, &mut |_| {}, &STOP)
}

/// An evaluation with a file of finished questions, which it leaves as it is.
fn run_with(options: &Options, path: &Path, scorer: &mut Bytes) -> Outcome {
    STOP.store(false, Ordering::Relaxed);
    let tokenizer = &Tokenizer::bytes();
    let mut partial = Partial::open(path, &options.program).unwrap();
    let partial = Some(&mut partial);
    evaluate(options, tokenizer, scorer, partial, &mut |_| {}, &STOP).unwrap()
}

fn finished(outcome: Outcome) -> (Results, Vec<Sample>) {
    match outcome {
        Outcome::Finished { results, samples } => (results, samples),
        Outcome::Stopped(progress) => panic!("stopped at {progress:?}"),
    }
}

/// One test, because the stop flag is shared.
#[test]
fn results_stopping_and_going_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    let mut scorer = Bytes::default();
    let whole = finished(run(&options, &mut scorer).unwrap());
    let all_requests = 2 * 2 + 600 + 398 * 3;
    assert_eq!(scorer.scored, all_requests);

    // PIQA: " aa" −2.26 and " aaa" −3.23; per character −1.13 and −1.0767.
    let (results, samples) = &whole;
    let first = &samples[0];
    assert!((first.logliks[0] + 2.26).abs() < 1e-12 && (first.logliks[1] + 3.23).abs() < 1e-12);
    assert_eq!((first.acc, first.acc_norm), (true, Some(false)));
    assert_eq!(first.tokens, [3, 4]);
    // " zz" −2.76 and " aaaa" −4.20; per character −1.38 and −1.05.
    assert_eq!((samples[1].acc, samples[1].acc_norm), (false, Some(true)));
    let piqa = &results.tasks[0];
    assert_eq!((piqa.questions, piqa.is_whole_split), (2, false));
    assert_eq!(piqa.metrics["acc"].value, 0.5);
    assert_eq!(piqa.metrics["acc"].stderr, Some(0.5));
    // LAMBADA: half of the words end in s; " cats" −4.59, " dog" −3.46.
    let words = &results.tasks[1];
    assert_eq!(words.metrics["acc"].value, 0.5);
    assert!((words.metrics["perplexity"].value.ln() - (4.59 + 3.46) / 2.0).abs() < 1e-9);
    assert!(!words.metrics.contains_key("acc_norm"));
    // 36 and more x, then " cats": 41 and more tokens, of which 41 fit.
    assert_eq!(
        words.truncated,
        samples.iter().filter(|s| s.truncated).count()
    );
    assert!((100..300).contains(&words.truncated), "{}", words.truncated);
    // ARC: "a" is always the likeliest.
    assert_eq!(results.tasks[2].metrics["acc"].value, 133.0 / 398.0);
    assert_eq!(results.average, None, "three tasks are missing");
    let text = results.to_string();
    for part in [
        "2 of 1838",
        "* acc",
        "acc_norm",
        "± 0.5000",
        "lost their beginning",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let json = serde_json::to_string(results).unwrap();
    assert_eq!(&serde_json::from_str::<Results>(&json).unwrap(), results);

    assert!(text.contains(&format!("piqa: {}", options.tasks[0].1.display())));
    assert_eq!(results.taken_over, 0);

    // Stopped and resumed in another call, twice: the same results, and nothing is scored twice.
    let path = dir.path().join("cache").join("partial.jsonl");
    let same = |outcome: Outcome, taken_over: usize| {
        let (mut results, samples) = finished(outcome);
        assert_eq!(results.taken_over, taken_over);
        let said = format!("scores of {taken_over} questions are from an earlier call");
        assert_eq!(results.to_string().contains(&said), taken_over > 0);
        results.taken_over = 0;
        assert_eq!((&results, &samples), (&whole.0, &whole.1));
    };
    let (mut total, mut kept) = (0, 0);
    for stop_after in [300, 700] {
        let mut scorer = Bytes {
            stop_after: Some(stop_after),
            ..Bytes::default()
        };
        let outcome = run_with(&options, &path, &mut scorer);
        let Outcome::Stopped(Progress { done, total: 1000 }) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(done > kept && done < 1000);
        total += scorer.scored;
        kept = done;
    }
    // A line that was cut short, as by a crash, is scored again; so is one whose scores somebody changed.
    let text = std::fs::read_to_string(&path).unwrap();
    let (first, rest) = text.split_once("\n{\"key\"").unwrap();
    let rest = rest.replacen("\"loglik\":-", "\"loglik\":-1", 1);
    let text = format!("{first}\n{{\"key\"{rest}");
    std::fs::write(&path, &text[..text.len() - 20]).unwrap();
    let mut scorer = Bytes::default();
    same(run_with(&options, &path, &mut scorer), kept - 2);
    total += scorer.scored;
    assert!(
        (all_requests + 2..=all_requests + 6).contains(&total),
        "{total}"
    );

    // Every result is cached now; a change of anything else that scores depend on recomputes them.
    let mut scorer = Bytes::default();
    same(run_with(&options, &path, &mut scorer), 1000);
    assert_eq!(scorer.scored, 0);
    let mut wider = Bytes::default();
    wider.context += 1;
    let others = [
        Options {
            model_hash: "another".into(),
            ..options.clone()
        },
        Options {
            precision: "int8".into(),
            ..options.clone()
        },
        Options {
            device: "cuda".into(),
            ..options.clone()
        },
    ];
    let scorers = [Bytes::default(), Bytes::default(), Bytes::default(), wider];
    for (other, mut scorer) in others.iter().chain([&options]).zip(scorers) {
        let (results, _) = finished(run_with(other, &path, &mut scorer));
        assert_eq!((results.taken_over, scorer.scored), (0, all_requests));
        assert_eq!(results.precision, other.precision);
    }
    let other = Options {
        program: "another program".into(),
        ..options.clone()
    };
    let mut scorer = Bytes::default();
    finished(run_with(&other, &path, &mut scorer));
    assert_eq!(scorer.scored, all_requests);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text.lines().count(),
        1 + 1000,
        "the other program's are gone"
    );

    // The first questions only.
    options.limit = Some(5);
    let (results, samples) = finished(run(&options, &mut Bytes::default()).unwrap());
    assert_eq!((samples.len(), results.limit), (12, Some(5)));
    let path = dir.path().join("samples.jsonl");
    write_samples(&path, &samples).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let read: Vec<Sample> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(read, samples);

    // Scores that are no numbers end it, and name the row.
    let mut bad = Bytes {
        bad: true,
        ..Bytes::default()
    };
    let message = run(&options, &mut bad).unwrap_err().to_string();
    assert!(
        message.contains("jsonl:") && message.contains("not finite"),
        "{message}"
    );
}
