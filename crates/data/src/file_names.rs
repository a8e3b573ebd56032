//! Names of the files in a dataset folder.

pub(crate) const TRAIN: &str = "train.tokens";
pub(crate) const VALID: &str = "valid.tokens";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Written last: a folder without it is not a dataset.
pub(crate) const DATASET: &str = "dataset.json";
/// Names of the files while they are being written.
pub(crate) const PARTIAL_TRAIN: &str = ".partial-train.tokens";
pub(crate) const PARTIAL_VALID: &str = ".partial-valid.tokens";
/// The saved progress of an unfinished dataset.
pub(crate) const NOTE: &str = ".partial-note.json";
/// The lock of the process that works in the folder.
pub(crate) const LOCK: &str = ".partial-lock";
pub(crate) const UNFINISHED: [&str; 6] = [
    PARTIAL_TRAIN,
    PARTIAL_VALID,
    ".partial-train.starts",
    ".partial-valid.starts",
    NOTE,
    LOCK,
];
pub(crate) const ALL: [&str; 4] = [TRAIN, VALID, TOKENIZER, DATASET];
