//! From documents to a dataset folder.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::write;
use tokenformer_data::{
    CorpusOptions, Dataset, Document, DocumentSource, Error, PrepareOptions, Stage, Summary,
    TokenFile, Tokenizer, TokenizerSpec, inspect,
};

fn texts(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("Document {n}: {}\n", "some words again ".repeat(n % 7 + 1)))
        .collect()
}

fn memory(texts: &[String]) -> DocumentSource {
    let document = |(n, text): (usize, &String)| Document {
        source: format!("memory:{n}"),
        text: text.clone(),
    };
    DocumentSource::Memory {
        label: "memory".into(),
        documents: texts.iter().enumerate().map(document).collect(),
    }
}

fn options(texts: &[String], out: &Path) -> PrepareOptions {
    let mut options = PrepareOptions::new(memory(texts), out.into());
    options.valid_fraction = 0.2;
    options
}

fn prepare(options: &PrepareOptions) -> Result<Summary, Error> {
    tokenformer_data::prepare(options, |_| {})
}

fn documents(file: &TokenFile, tokenizer: &Tokenizer) -> Vec<String> {
    let document = |doc| {
        let bounds = file.doc_bounds(doc).unwrap();
        let mut tokens = vec![0; bounds.len()];
        file.read(bounds.start, &mut tokens).unwrap();
        assert_eq!(tokens.pop(), tokenizer.eod(), "the end of a document");
        tokenizer.decode(&tokens)
    };
    (0..file.doc_count()).map(document).collect()
}

fn split_of(options: &PrepareOptions) -> [Vec<String>; 2] {
    prepare(options).unwrap();
    let dataset = Dataset::open(&options.out).unwrap();
    [&dataset.train, &dataset.valid].map(|file| documents(file, &dataset.tokenizer))
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn whole_documents_come_back_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts(200);
    for (name, tokenizer) in [
        ("bytes", TokenizerSpec::Bytes),
        ("bpe", TokenizerSpec::TrainBpe { vocab_size: 290 }),
        ("gpt2", TokenizerSpec::Gpt2),
    ] {
        let mut options = options(&texts, &dir.path().join(name));
        options.tokenizer = tokenizer;
        let [train, valid] = split_of(&options);
        assert!((20..60).contains(&valid.len()), "{}", valid.len());
        let mut rest = valid.iter().peekable();
        let expected_train: Vec<_> = texts
            .iter()
            .filter(|text| rest.next_if_eq(text).is_none())
            .collect();
        assert_eq!(train.iter().collect::<Vec<_>>(), expected_train);
        assert_eq!(rest.next(), None);
    }
}

#[test]
fn the_summary_tells_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/down");
    let texts = texts(50);
    let summary = prepare(&options(&texts, &out)).unwrap();
    assert_eq!(inspect(&out).unwrap(), summary);
    assert_eq!(
        names(&out),
        [
            "dataset.json",
            "tokenizer.json",
            "train.tokens",
            "valid.tokens"
        ]
        .map(String::from)
        .into()
    );
    let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
    assert_eq!(summary.train.documents + summary.valid.documents, 50);
    assert_eq!(summary.train.text_bytes + summary.valid.text_bytes, bytes);
    assert_eq!(summary.train.tokens + summary.valid.tokens, bytes + 50);
    assert_eq!(
        (summary.read.documents, summary.read.text_bytes),
        (50, bytes)
    );
    assert_eq!(summary.tokenizer.name, "bytes");
    assert_eq!(summary.inputs, ["memory"]);
    assert_eq!(summary.notes, [""; 0]);
    let shown = summary.to_string();
    let tokens = summary.train.tokens.to_string();
    assert!(
        shown.contains("tokenizer   bytes (257 tokens") && shown.contains(&tokens),
        "{shown}"
    );
}

#[test]
fn the_same_inputs_and_seed_give_the_same_bytes_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts(120);
    let run = |name: &str, seed, threads| {
        let mut options = options(&texts, &dir.path().join(name));
        options.tokenizer = TokenizerSpec::TrainBpe { vocab_size: 300 };
        options.seed = seed;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| prepare(&options)).unwrap();
        names(&options.out)
            .iter()
            .map(|file| fs::read(options.out.join(file)).unwrap())
            .collect::<Vec<_>>()
    };
    let first = run("a", 1, 1);
    assert_eq!(first, run("b", 1, 4));
    assert_ne!(
        first[3],
        run("c", 2, 1)[3],
        "another seed, another validation split"
    );
}

#[test]
fn the_order_of_the_documents_does_not_matter_and_more_of_them_move_few() {
    let dir = tempfile::tempdir().unwrap();
    let all = texts(400);
    let valid = |name: &str, texts: &[String]| {
        let [_, valid] = split_of(&options(texts, &dir.path().join(name)));
        valid.into_iter().collect::<BTreeSet<_>>()
    };
    let expected = valid("all", &all);
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(valid("reversed", &reversed), expected);
    let half: BTreeSet<_> = all[..200].iter().cloned().collect();
    let common: BTreeSet<_> = expected.intersection(&half).cloned().collect();
    let moved = valid("half", &all[..200])
        .symmetric_difference(&common)
        .count();
    assert!(moved < 10, "{moved} of {}", common.len());
}

#[test]
fn equal_documents_never_part() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = texts(60);
    all.extend(texts(60));
    let [train, valid] = split_of(&options(&all, &dir.path().join("out")));
    let train: BTreeSet<_> = train.into_iter().collect();
    assert!(valid.iter().all(|text| !train.contains(text)));
    assert!(!valid.is_empty());
}

#[test]
fn both_splits_have_a_document_when_there_are_two() {
    let dir = tempfile::tempdir().unwrap();
    let twins = vec!["the same\n".to_owned(); 2];
    for (name, fraction) in [("few", 1e-9), ("most", 1.0 - 1e-9)] {
        for (kind, texts) in [("two", &texts(2)), ("nine", &texts(9)), ("twins", &twins)] {
            let mut options = options(texts, &dir.path().join(format!("{name}-{kind}")));
            options.valid_fraction = fraction;
            let summary = prepare(&options).unwrap();
            let lone = if name == "few" {
                &summary.valid
            } else {
                &summary.train
            };
            assert_eq!(lone.documents, 1, "{name} {kind}");
            assert_eq!(
                summary.train.documents + summary.valid.documents,
                texts.len() as u64
            );
            assert_eq!(inspect(&options.out).unwrap(), summary);
        }
    }
}

#[test]
fn a_single_document_is_cut_at_a_line_end_and_the_summary_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..100).map(|n| format!("line {n:03}\n")).collect();
    let options = options(std::slice::from_ref(&text), &dir.path().join("out"));
    let [train, valid] = split_of(&options);
    assert_eq!((train.len(), valid.len()), (1, 1));
    assert_eq!(train[0].clone() + &valid[0], text);
    assert_eq!(valid[0].lines().count(), 20);
    let notes = inspect(&options.out).unwrap().notes;
    assert_eq!(
        notes,
        ["There is only one document, so its end was cut off for validation."]
    );
}

#[test]
fn a_document_larger_than_memory_allows_at_once_is_encoded_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let large: String = (0..900_000)
        .map(|n| format!("line {:07}\n", n % 1000))
        .collect();
    let mut texts = texts(20);
    texts.insert(10, large);
    for (name, tokenizer) in [
        ("bytes", TokenizerSpec::Bytes),
        ("bpe", TokenizerSpec::TrainBpe { vocab_size: 400 }),
    ] {
        let mut options = options(&texts, &dir.path().join(name));
        options.tokenizer = tokenizer;
        let [train, valid] = split_of(&options);
        assert_eq!(train.len() + valid.len(), 21);
        let all: BTreeSet<_> = train.into_iter().chain(valid).collect();
        assert!(all == texts.iter().cloned().collect());
    }
}

#[test]
fn too_little_text_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let error = prepare(&options(&["x".to_owned()], &out)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::EmptySplit {
                split: "validation",
                documents: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(!out.exists());
    // The token of a tokenizer that ends no document is alone.
    let tokenizer = dir.path().join("letters.json");
    let letters = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;
    std::fs::write(&tokenizer, letters).unwrap();
    let mut single = options(&["a".repeat(100), "b".to_owned()], &out);
    single.tokenizer = TokenizerSpec::File(tokenizer);
    let error = prepare(&single).unwrap_err();
    assert!(
        matches!(
            error,
            Error::EmptySplit {
                split: "validation",
                tokens: 1,
                ..
            }
        ),
        "{error}"
    );
    let error = prepare(&options(&[String::new()], &out)).unwrap_err();
    assert!(matches!(error, Error::NoText { .. }), "{error}");
    assert!(!out.exists());
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for fraction in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
        let mut options = options(&texts(3), &dir.path().join("out"));
        options.valid_fraction = fraction;
        let error = prepare(&options).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("--valid-fraction: out of range"),
            "{error}"
        );
    }
}

#[test]
fn a_folder_in_use_is_kept_unless_it_is_a_dataset_and_force_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut options = options(&texts(30), &out);
    prepare(&options).unwrap();
    options.seed = 7;
    let error = prepare(&options).unwrap_err();
    assert!(matches!(error, Error::OutputNotEmpty { .. }), "{error}");
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(inspect(&out).unwrap().seed, 0);

    write(&out, ".partial-abc", "left by a run that was killed");
    options.force = true;
    prepare(&options).unwrap();
    assert_eq!((inspect(&out).unwrap().seed, names(&out).len()), (7, 4));

    write(&out, "thesis.tex", "precious");
    let error = prepare(&options).unwrap_err();
    assert!(
        error.to_string().contains("got:      thesis.tex"),
        "{error}"
    );
    assert_eq!(inspect(&out).unwrap().seed, 7);

    let file = write(dir.path(), "file", "");
    options.out = file;
    assert!(matches!(prepare(&options), Err(Error::Io { .. })));
}

#[test]
fn a_failed_run_leaves_the_old_dataset_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    prepare(&options(&texts(30), &out)).unwrap();
    let corpus = dir.path().join("corpus");
    write(&corpus, "a.txt", "fine\n".repeat(10));
    write(&corpus, "b.jsonl", "{\"text\":\"fine\"}\nbroken\n");
    let source = DocumentSource::Paths(CorpusOptions::new(vec![corpus]));
    let mut options = PrepareOptions::new(source, out.clone());
    options.force = true;
    assert!(matches!(prepare(&options), Err(Error::JsonLine { .. })));
    assert_eq!(
        inspect(&out).unwrap().train.documents + inspect(&out).unwrap().valid.documents,
        30
    );
    assert_eq!(names(&out).len(), 4);
}

#[test]
fn files_and_a_tokenizer_file_work_as_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("corpus");
    for (n, text) in texts(40).iter().enumerate() {
        write(&corpus, &format!("{n:02}.txt"), text);
    }
    let tokenizer = Tokenizer::train_bpe(texts(40), 280, |_, _| {}).unwrap();
    let path = dir.path().join("tok.json");
    tokenizer.save(&path).unwrap();
    let source = DocumentSource::Paths(CorpusOptions::new(vec![corpus.clone()]));
    let mut options = PrepareOptions::new(source, dir.path().join("out"));
    options.tokenizer = TokenizerSpec::File(path);
    let mut stages = Vec::new();
    let summary = tokenformer_data::prepare(&options, |progress| {
        stages.push(progress.stage);
        assert!(progress.total.is_none_or(|total| progress.done <= total));
    })
    .unwrap();
    stages.dedup();
    assert_eq!(stages, [Stage::Survey, Stage::Encode]);
    assert_eq!(summary.tokenizer.fingerprint, tokenizer.fingerprint());
    assert_eq!(summary.inputs, [corpus.display().to_string()]);
    assert_eq!(summary.read.files, 40);
    assert!(summary.train.bytes_per_token() > 2.0);
}

#[test]
fn a_trained_tokenizer_learns_from_the_training_split_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&texts(60), &dir.path().join("out"));
    options.tokenizer = TokenizerSpec::TrainBpe { vocab_size: 300 };
    let mut stages = Vec::new();
    tokenformer_data::prepare(&options, |progress| stages.push(progress.stage)).unwrap();
    stages.dedup();
    assert_eq!(
        stages,
        [
            Stage::Survey,
            Stage::Sample,
            Stage::TrainTokenizer,
            Stage::Encode
        ]
    );
    let dataset = Dataset::open(&options.out).unwrap();
    let train = documents(&dataset.train, &dataset.tokenizer);
    let expected = Tokenizer::train_bpe(train, 300, |_, _| {}).unwrap();
    assert_eq!(dataset.tokenizer.fingerprint(), expected.fingerprint());
}

#[test]
fn mixed_and_damaged_datasets_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    prepare(&options(&texts(30), &a)).unwrap();
    let mut other = options(&texts(40), &b);
    other.tokenizer = TokenizerSpec::TrainBpe { vocab_size: 270 };
    prepare(&other).unwrap();
    for name in ["train.tokens", "valid.tokens", "tokenizer.json"] {
        let good = fs::read(a.join(name)).unwrap();
        fs::copy(b.join(name), a.join(name)).unwrap();
        let error = inspect(&a).unwrap_err();
        assert!(matches!(error, Error::Dataset { .. }), "{name}: {error}");
        fs::remove_file(a.join(name)).unwrap();
        let error = inspect(&a).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
        fs::write(a.join(name), good).unwrap();
    }
    inspect(&a).unwrap();
    let json = fs::read_to_string(a.join("dataset.json")).unwrap();
    for (from, to, problem) in [
        ("\"version\": 1", "\"version\": 2", "unknown version"),
        ("\"seed\"", "\"sead\"", "not the description of a dataset"),
        (
            "\"tokens\": ",
            "\"tokens\": 1",
            "not the token file of the dataset",
        ),
        (
            "\"vocab_size\": 257",
            "\"vocab_size\": 258",
            "the tokenizer is not the one",
        ),
    ] {
        assert!(json.contains(from), "{from}");
        fs::write(a.join("dataset.json"), json.replacen(from, to, 1)).unwrap();
        let error = inspect(&a).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    fs::remove_file(a.join("dataset.json")).unwrap();
    let error = inspect(&a).unwrap_err().to_string();
    assert!(error.contains("not a dataset"), "{error}");
    assert!(matches!(
        inspect(&dir.path().join("none")),
        Err(Error::Io { .. })
    ));
}
