//! Datasets from and to the token data of Megatron-LM and GPT-NeoX.

mod common;

use common::{Lab, message};
use std::path::{Path, PathBuf};
use tokenformer_convert::corpus::{ExportedCorpus, ImportCorpus, Part, export, import};
use tokenformer_data::{Dataset, TokenFile, Tokenizer, TokenizerSpec};

/// 40 documents of ids below 200, each ending with 0; made by other tools.
fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/corpus_text_document")
}

/// A byte-pair encoding whose end of document is 0.
fn tokenizer(lab: &Lab) -> TokenizerSpec {
    let texts = ["to be or not to be, that is the question".to_string()];
    let path = lab.path("tokenizer.json");
    Tokenizer::train_bpe(texts, 260, |_, _| {})
        .unwrap()
        .save(&path)
        .unwrap();
    TokenizerSpec::File(path)
}

fn options(lab: &Lab, prefix: &Path) -> ImportCorpus {
    ImportCorpus {
        prefix: prefix.into(),
        tokenizer: tokenizer(lab),
        out: lab.path("data"),
        valid_fraction: 0.2,
        seed: 1,
        force: true,
    }
}

/// The format by its definition: sequences of 16-bit tokens.
fn parse(prefix: &Path) -> Vec<Vec<u16>> {
    let (index, bin) = (with(prefix, ".idx"), with(prefix, ".bin"));
    let (index, bin) = (std::fs::read(index).unwrap(), std::fs::read(bin).unwrap());
    assert_eq!(&index[..9], b"MMIDIDX\0\0");
    let number = |at: usize| u64::from_le_bytes(index[at..at + 8].try_into().unwrap()) as usize;
    assert_eq!((number(9), index[17]), (1, 8));
    let (sequences, entries) = (number(18), number(26));
    assert_eq!(entries, sequences + 1);
    assert_eq!(index.len(), 34 + 12 * sequences + 8 * entries);
    (0..sequences)
        .map(|s| {
            let length = i32::from_le_bytes(index[34 + 4 * s..][..4].try_into().unwrap()) as usize;
            let from = number(34 + 4 * sequences + 8 * s);
            assert_eq!(number(34 + 12 * sequences + 8 * s), s);
            let tokens = bin[from..from + 2 * length].chunks(2);
            tokens
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect()
        })
        .collect()
}

fn with(prefix: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", prefix.display()))
}

fn documents(file: &TokenFile) -> Vec<Vec<u16>> {
    (0..file.doc_count())
        .map(|doc| {
            let bounds = file.doc_bounds(doc).unwrap();
            let mut tokens = vec![0; bounds.len()];
            file.read(bounds.start, &mut tokens).unwrap();
            tokens.into_iter().map(|token| token as u16).collect()
        })
        .collect()
}

fn sorted(mut documents: Vec<Vec<u16>>) -> Vec<Vec<u16>> {
    documents.sort();
    documents
}

#[test]
fn every_document_arrives_as_it_is() {
    let lab = Lab::new();
    let mut last = (0, 0);
    let summary = import(&options(&lab, &corpus()), |done, total| {
        last = (done, total)
    })
    .unwrap();
    assert_eq!(last, (80, 80));
    let original = parse(&corpus());
    let dataset = Dataset::open(&lab.path("data")).unwrap();
    let (train, valid) = (documents(&dataset.train), documents(&dataset.valid));
    assert!(!train.is_empty() && !valid.is_empty() && train.len() > valid.len());
    assert_eq!(
        sorted([train.clone(), valid].concat()),
        sorted(original.clone())
    );
    assert_eq!(summary.train.tokens + summary.valid.tokens, 2273);
    // Documents keep their order.
    let kept: Vec<_> = original
        .into_iter()
        .filter(|doc| train.contains(doc))
        .collect();
    assert_eq!(train, kept);
    // Bytes of text are those that the tokens decode to.
    let tokens: Vec<u32> = train[0].iter().map(|&token| token.into()).collect();
    assert!(summary.train.text_bytes > dataset.tokenizer.decode(&tokens).len() as u64);
    assert_eq!(summary.read.documents, 40);
}

#[test]
fn what_is_exported_is_what_was_imported() {
    let lab = Lab::new();
    import(&options(&lab, &corpus()), |_, _| {}).unwrap();
    let dataset = Dataset::open(&lab.path("data")).unwrap();
    let (train, valid) = (documents(&dataset.train), documents(&dataset.valid));
    let (trains, valids) = (train.len() as u64, valid.len() as u64);
    for (part, expected, train_documents, valid_documents) in [
        (
            Part::All,
            [train.clone(), valid.clone()].concat(),
            trains,
            valids,
        ),
        (Part::Train, train, trains, 0),
        (Part::Valid, valid, 0, valids),
    ] {
        let prefix = lab.path(&format!("{part:?}"));
        let tokens = expected.iter().map(Vec::len).sum::<usize>() as u64;
        let exported = export(&lab.path("data"), &prefix, part, |_, _| {}).unwrap();
        assert_eq!(
            exported,
            ExportedCorpus {
                train_documents,
                valid_documents,
                tokens
            }
        );
        assert_eq!(parse(&prefix), expected);
    }
    // A second import puts the same documents into the same splits.
    let mut again = options(&lab, &lab.path("All.bin"));
    again.out = lab.path("again");
    let (first, second) = (dataset.summary, import(&again, |_, _| {}).unwrap());
    assert_eq!((first.train, first.valid), (second.train, second.valid));
}

#[test]
fn an_only_document_is_cut_and_ends_are_added() {
    let lab = Lab::new();
    let mut writer =
        tokenformer_formats::megatron::MegatronWriter::create(&lab.path("one"), 260).unwrap();
    let tokens: Vec<u32> = (1..=100).collect();
    writer.add_document(&tokens).unwrap();
    writer.finish().unwrap();
    let summary = import(&options(&lab, &lab.path("one")), |_, _| {}).unwrap();
    assert_eq!((summary.train.tokens, summary.valid.tokens), (81, 21));
    assert!(
        summary
            .notes
            .iter()
            .any(|note| note.contains("1 documents had no end-of-document"))
    );
}

#[test]
fn data_and_tokenizer_have_to_fit() {
    let lab = Lab::new();
    let mut small = options(&lab, &corpus());
    std::fs::write(lab.path("small.json"), common::TOKENIZER).unwrap();
    small.tokenizer = TokenizerSpec::File(lab.path("small.json"));
    let told = message(import(&small, |_, _| {}));
    assert!(
        told.contains("outside the vocabulary") && told.contains("below 4"),
        "{told}"
    );
    let mut trained = options(&lab, &corpus());
    trained.tokenizer = TokenizerSpec::TrainBpe { vocab_size: 300 };
    assert!(message(import(&trained, |_, _| {})).contains("give the file"));
    assert!(message(import(&options(&lab, &lab.path("gone")), |_, _| {})).contains("gone.idx"));
    std::fs::copy(with(&corpus(), ".idx"), lab.path("cut.idx")).unwrap();
    std::fs::write(lab.path("cut.bin"), [0; 100]).unwrap();
    assert!(message(import(&options(&lab, &lab.path("cut")), |_, _| {})).contains("cut.idx"));
    assert!(!lab.path("data").exists());
}

/// `TOKENFORMER_PYTHON` names a Python with numpy.
#[test]
#[ignore = "needs a Python with numpy, named by TOKENFORMER_PYTHON"]
fn numpy_reads_what_is_exported() {
    let python = std::env::var_os("TOKENFORMER_PYTHON").expect("TOKENFORMER_PYTHON names a Python");
    let lab = Lab::new();
    import(&options(&lab, &corpus()), |_, _| {}).unwrap();
    export(&lab.path("data"), &lab.path("all"), Part::All, |_, _| {}).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/same_documents.py");
    let mut compare = std::process::Command::new(python);
    compare.arg(script).arg(corpus()).arg(lab.path("all"));
    assert!(compare.status().unwrap().success());
}
