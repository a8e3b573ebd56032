//! What a dataset says about the way it was made.

mod common;

use std::path::{Path, PathBuf};

use common::write;
use tokenformer_data::{
    CorpusOptions, Dataset, DocumentSource, Error, PrepareOptions, Summary, Tokenizer,
    TokenizerSpec, inspect,
};

fn options(inputs: &[&Path], out: &Path) -> PrepareOptions {
    let inputs: Vec<PathBuf> = inputs.iter().map(|&input| input.into()).collect();
    PrepareOptions::new(
        DocumentSource::Paths(CorpusOptions::new(inputs)),
        out.into(),
    )
}

fn prepare(options: &PrepareOptions) -> Result<Summary, Error> {
    let summary = tokenformer_data::prepare(options, |_| {})?;
    assert_eq!(inspect(&options.out).unwrap(), summary);
    Ok(summary)
}

fn chapter(n: usize) -> String {
    (0..50)
        .map(|line| format!("chapter {n} line {line} about the sea\n"))
        .collect()
}

#[test]
fn a_large_document_beside_small_ones_trains_and_the_share_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("corpus");
    write(&corpus, "corpus.txt", chapter(1).repeat(20));
    write(&corpus, "README.md", "# The corpus\nSee corpus.txt.\n");
    for seed in 0..10 {
        let mut options = options(&[&corpus], &dir.path().join(seed.to_string()));
        options.seed = seed;
        let summary = prepare(&options).unwrap();
        assert_eq!(summary.valid.text_bytes, 29, "seed {seed}");
        let [note] = &summary.notes[..] else {
            panic!("{:?}", summary.notes);
        };
        assert!(
            note.starts_with("Warning: ") && note.contains("is held out (29 bytes), not 5.0 %"),
            "{note}"
        );
        assert!(
            summary.to_string().contains("\nnote        Warning: "),
            "{summary}"
        );
    }
}

#[test]
fn a_single_document_without_a_line_end_nearby_is_cut_at_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("Title\n{}", "a long line of words ".repeat(500));
    let path = write(dir.path(), "a.txt", text);
    let summary = prepare(&options(&[&path], &dir.path().join("out"))).unwrap();
    assert_eq!(
        summary.notes,
        ["There is only one document, so its end was cut off for validation."]
    );
    let share = summary.valid.text_bytes as f64 / summary.read.text_bytes as f64;
    assert!((share - 0.05).abs() < 0.001, "{share}");
}

#[test]
fn a_single_document_that_is_too_short_for_its_share_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.txt", "éé");
    let notes = prepare(&options(&[&path], &dir.path().join("out")))
        .unwrap()
        .notes;
    assert_eq!(
        notes,
        [
            "There is only one document, so its end was cut off for validation.",
            "Warning: 50.0 % of the text is held out (2 bytes), not 5.0 %: the text is too short for that.",
        ]
    );
}

#[test]
fn the_programs_own_output_is_left_out_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path();
    for n in 0..12 {
        write(project, &format!("chapter{n}.txt"), chapter(n));
    }
    let own = |summary: &Summary| {
        let notes = summary
            .notes
            .iter()
            .filter(|note| note.starts_with("Left out: "));
        notes.cloned().collect::<Vec<_>>()
    };
    let mut options = options(&[project], &project.join("data/mine"));
    options.tokenizer = TokenizerSpec::TrainBpe { vocab_size: 300 };
    let first = prepare(&options).unwrap();
    assert_eq!((first.read.documents, own(&first).len()), (12, 0));

    // The same again, next to a run, a model directory and a dataset in the making.
    write(project, "runs/one/config.toml", "steps = 7\n");
    write(project, "runs/one/metrics.jsonl", "{\"kind\":\"train\"}\n");
    write(project, "runs/one/checkpoints/step-7/config.json", "{}");
    write(
        project,
        "model/manifest.json",
        "{\"format\":\"tokenformer-manifest\",\"version\":1}",
    );
    write(project, "model/tokenizer.json", "{}");
    write(project, "half/.partial-note.json", "{}");
    write(project, "half/tokenizer.json", "{}");
    // A folder of texts may have such names too.
    write(
        project,
        "texts/manifest.json",
        "{\"format\": \"another\"}\n",
    );
    write(project, "texts/dataset.json", "{}\n");
    options.force = true;
    let second = prepare(&options).unwrap();
    assert_eq!(second.read.documents, 14);
    let told =
        |path: &str, what: &str| format!("Left out: {} ({what}).", project.join(path).display());
    assert_eq!(
        own(&second),
        [
            told("data/mine", "a dataset"),
            told("half", "a dataset in the making"),
            told("model", "a model directory"),
            told("runs/one", "a run"),
        ]
    );
    for (path, what) in [("data/mine", "a dataset"), ("runs/one", "a run")] {
        let path = project.join(path);
        let named = self::options(&[&path], &project.join("other"));
        let error = prepare(&named).unwrap_err();
        assert!(
            matches!(&error, Error::OwnOutput { what: got, .. } if *got == what),
            "{error}"
        );
        assert!(!project.join("other").exists());
    }
}

#[test]
fn the_tokenizer_file_is_no_text() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..12 {
        write(dir.path(), &format!("chapter{n}.txt"), chapter(n));
    }
    let path = dir.path().join("tokenizer.json");
    Tokenizer::train_bpe([chapter(1)], 300, |_, _| {})
        .unwrap()
        .save(&path)
        .unwrap();
    let mut options = options(&[dir.path()], &dir.path().join("out"));
    options.tokenizer = TokenizerSpec::File(path.clone());
    let summary = prepare(&options).unwrap();
    assert_eq!(summary.read.documents, 12);
    assert_eq!(
        summary.notes,
        [format!("Left out: {} (the tokenizer).", path.display())]
    );
}

#[test]
fn what_was_met_and_changed_on_the_way_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = (0..40)
        .map(|n| format!("{{\"text\":\"line {n} \\ud83d\"}}\n"))
        .collect();
    let lines = write(dir.path(), "lines.json", lines);
    let array = write(dir.path(), "array.json", "[1, 2]");
    let summary = prepare(&options(&[&lines, &array, &lines], &dir.path().join("out"))).unwrap();
    assert_eq!(
        summary.notes,
        [
            "1 files or folders were met again by another name or link; each was read once.",
            "40 halves of surrogate pairs, which are no characters, became U+FFFD.",
            "1 files named .json are not JSON Lines and were read as they are; jq -c '.[]' makes lines of an array.",
        ]
    );
}

#[test]
fn spelled_ends_of_documents_are_told_and_can_part_texts() {
    let dir = tempfile::tempdir().unwrap();
    let stories: Vec<String> = (0..30).map(chapter).collect();
    let text = stories.join("<|endoftext|>\n");
    let path = write(dir.path(), "stories.txt", &text);
    let mut options = options(&[&path], &dir.path().join("one"));
    let notes = prepare(&options).unwrap().notes;
    let expected = "The texts spell <|endoftext|> 29 times, which stays text. If it ends documents there, part them with \
                    --split-on '<|endoftext|>'.";
    assert!(notes.contains(&expected.to_owned()), "{notes:?}");

    let mut corpus = CorpusOptions::new(vec![path]);
    corpus.split_on = Some("<|endoftext|>".into());
    options.source = DocumentSource::Paths(corpus.clone());
    options.out = dir.path().join("parted");
    let summary = prepare(&options).unwrap();
    assert_eq!(summary.train.documents + summary.valid.documents, 30);
    assert_eq!(
        summary.notes,
        ["Texts were parted at 29 places that spell <|endoftext|>."]
    );
    let dataset = Dataset::open(&options.out).unwrap();
    let bounds = dataset.train.doc_bounds(0).unwrap();
    let mut tokens = vec![0; bounds.len()];
    dataset.train.read(bounds.start, &mut tokens).unwrap();
    let text = dataset.tokenizer.decode(&tokens);
    assert!(
        stories.iter().any(|story| story.trim_end() == text),
        "{text}"
    );

    corpus.split_on = Some("===".into());
    options.source = DocumentSource::Paths(corpus);
    options.out = dir.path().join("whole");
    let notes = prepare(&options).unwrap().notes;
    assert!(
        notes.contains(&"No text spells ===, so none was parted.".to_owned()),
        "{notes:?}"
    );
}

#[test]
fn characters_that_a_tokenizer_loses_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..30)
        .map(|n| format!("{{\"text\":\"wörd {n} 語\"}}\n"))
        .collect();
    let lines = write(dir.path(), "lines.jsonl", text);
    let mut vocab = serde_json::Map::new();
    for c in " 0123456789wrd".chars() {
        vocab.insert(c.to_string(), vocab.len().into());
    }
    let mut file = serde_json::json!({"version": "1.0", "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    let path = dir.path().join("tokenizer.json");
    let mut options = options(&[&lines], &dir.path().join("out"));
    options.tokenizer = TokenizerSpec::File(path.clone());
    options.force = true;
    let notes_of = |file: &serde_json::Value| {
        std::fs::write(&path, file.to_string()).unwrap();
        prepare(&options).unwrap().notes
    };
    let notes = notes_of(&file);
    let dropped =
        "The tokenizer dropped 60 characters of the text, which the tokens do not tell of.";
    assert!(notes.contains(&dropped.to_owned()), "{notes:?}");
    file["model"]["vocab"]["<unk>"] = 14.into();
    file["model"]["unk_token"] = "<unk>".into();
    let notes = notes_of(&file);
    let unknown = "60 characters of the text became the tokenizer's unknown token.";
    assert!(notes.contains(&unknown.to_owned()), "{notes:?}");
}

#[test]
fn files_that_have_no_key_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("corpus");
    let lines: String = (0..50)
        .map(|n| format!("{{\"body\":\"text {n}\"}}\n"))
        .collect();
    write(&corpus, "lines.jsonl", lines);
    for n in 0..7 {
        write(
            &corpus,
            &format!("other{n}.md"),
            "# Words about the texts\n",
        );
    }
    let mut corpus_options = CorpusOptions::new(vec![corpus.clone()]);
    corpus_options.text_key = Some("body".into());
    let options = PrepareOptions::new(
        DocumentSource::Paths(corpus_options),
        dir.path().join("out"),
    );
    let summary = prepare(&options).unwrap();
    assert_eq!(summary.read.documents, 50);
    let names: Vec<String> = (0..5)
        .map(|n| corpus.join(format!("other{n}.md")).display().to_string())
        .collect();
    assert_eq!(
        summary.notes,
        [format!(
            "Left out, because a key was given and they are not JSON Lines: 7 files ({} and 2 more).",
            names.join(", ")
        )]
    );
    assert!(
        summary
            .to_string()
            .contains("\nskipped     7 files that are not JSON Lines\n"),
        "{summary}"
    );
}

#[test]
fn a_dataset_of_an_earlier_version_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.txt", chapter(1));
    let out = dir.path().join("out");
    prepare(&options(&[&path], &out)).unwrap();
    let json = std::fs::read(out.join("dataset.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let read = json["read"].as_object_mut().unwrap();
    let known = [
        "files",
        "documents",
        "text_bytes",
        "skipped_binary_files",
        "skipped_empty_files",
        "skipped_links",
        "skipped_empty_documents",
    ];
    read.retain(|key, _| known.contains(&key.as_str()));
    assert_eq!(read.len(), known.len());
    std::fs::write(out.join("dataset.json"), json.to_string()).unwrap();
    assert_eq!(inspect(&out).unwrap().read.documents, 1);
}
