//! Documents from files and folders.
//!
//! | a file with                                        | documents |
//! |----------------------------------------------------|-----------|
//! | an object per line, or the name `*.jsonl`, `*.ndjson` | one per line: the string at [`CorpusOptions::text_key`] |
//! | any other text                                     | one: the whole file |
//!
//! The content decides, not the name. Files compressed by gzip or zstd are decompressed while they are read. A file in
//! another format is an error that says its name; in folders such files are skipped and counted. A folder means its
//! files in the order of their names, folder by folder. Each file is read once, even if several names lead to it.
//!
//! With [`CorpusOptions::split_on`] every text is split at a marker. Memory is bounded by one document: JSON Lines are
//! read line by line, and files that are split are read part by part.

mod own;
mod read;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use walk::{InputFile, Walk};

pub use walk::LeftOut;

/// One text with the place it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `path`, or `path:line` in a JSON Lines file.
    pub source: String,
    /// The text; never empty when it comes from a [`Corpus`].
    pub text: String,
}

/// What to read.
#[derive(Debug, Clone)]
pub struct CorpusOptions {
    /// Files and folders, read in this order.
    pub inputs: Vec<PathBuf>,
    /// The key of the text in JSON Lines; default `None`, which means `"text"`. With a key only JSON Lines are read: named
    /// files must be, files in folders that are not are skipped and counted, and at least one file of all must be.
    pub text_key: Option<String>,
    /// A marker that ends a document inside a text; default `None`. The marker and the line ends around it are removed.
    pub split_on: Option<String>,
    /// Files and folders that are skipped inside folders; default none.
    pub left_out: Vec<PathBuf>,
    /// Largest document accepted, decompressed; default 1 GiB. It bounds the memory that a small
    /// compressed file can claim.
    pub max_document_bytes: u64,
}

impl CorpusOptions {
    /// The defaults for these inputs.
    pub fn new(inputs: Vec<PathBuf>) -> Self {
        Self {
            inputs,
            text_key: None,
            split_on: None,
            left_out: Vec::new(),
            max_document_bytes: 1 << 30,
        }
    }

    fn key(&self) -> &str {
        self.text_key.as_deref().unwrap_or("text")
    }
}

/// Number of skipped files whose names are kept.
const NAMES_KEPT: usize = 5;

/// Counts from one pass over a corpus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusStats {
    /// Files with at least one document.
    pub files: u64,
    /// Documents passed to the visitor.
    pub documents: u64,
    /// UTF-8 bytes of their text.
    pub text_bytes: u64,
    /// Files in folders skipped because they are not UTF-8 text.
    pub skipped_binary_files: u64,
    /// Files in folders skipped because they are empty.
    pub skipped_empty_files: u64,
    /// Links in folders whose target is missing or is a parent folder.
    pub skipped_links: u64,
    /// JSON lines whose text is the empty string.
    pub skipped_empty_documents: u64,
    /// Files in folders skipped because a key was given and they are not JSON Lines.
    #[serde(default)]
    pub skipped_not_lines: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_not_lines: Vec<String>,
    /// Number of files in folders skipped because of their format, by format name.
    #[serde(default)]
    pub skipped_formats: BTreeMap<String, u64>,
    /// Files and folders that were skipped because they had been reached through another name before.
    #[serde(default)]
    pub repeats: u64,
    /// Files read as JSON Lines.
    #[serde(default)]
    pub json_lines_files: u64,
    /// Files named `*.json` that are not JSON Lines, which are read as plain text.
    #[serde(default)]
    pub whole_json_files: u64,
    /// Unpaired surrogates in the texts of JSON Lines, each of which was replaced by U+FFFD.
    #[serde(default)]
    pub replaced_surrogates: u64,
    /// Markers at which texts were split.
    #[serde(default)]
    pub markers: u64,
}

/// The files of a set of inputs, in a fixed order.
#[derive(Debug)]
pub struct Corpus {
    options: CorpusOptions,
    inputs: Vec<walk::Input>,
    skipped_links: u64,
    left_out: Vec<LeftOut>,
}

impl Corpus {
    /// Finds the files without reading them.
    ///
    /// Hidden files and folders inside a folder (names that start with a dot) are skipped, and so are folders that this
    /// program wrote, such as datasets and runs.
    ///
    /// # Errors
    /// There are no inputs, an input that is missing or is neither file nor folder, an unreadable folder, a folder that
    /// this program wrote is an input, or the marker is empty.
    pub fn open(options: CorpusOptions) -> Result<Self> {
        if options.inputs.is_empty() {
            return Err(Error::NoInput);
        }
        if options.split_on.as_deref() == Some("") {
            return Err(Error::Option {
                option: "--split-on",
                expected: "a marker of at least one character",
                got: "an empty one".into(),
            });
        }
        let mut walk = Walk::new(&options.left_out);
        let inputs = options
            .inputs
            .iter()
            .map(|path| walk.expand(path))
            .collect::<Result<_>>()?;
        Ok(Self {
            options,
            inputs,
            skipped_links: walk.skipped_links,
            left_out: walk.left_out,
        })
    }

    /// What is skipped inside the folders: the program's own output, and [`CorpusOptions::left_out`].
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The options that the corpus was opened with.
    pub fn options(&self) -> &CorpusOptions {
        &self.options
    }

    /// Calls `visitor` with every document, in the same order each time.
    ///
    /// # Errors
    /// A file that cannot be read, decompressed or parsed; a file named explicitly that is empty, not UTF-8, or not JSON
    /// Lines although a key was given; a folder without any text, or without JSON Lines if a key was given; errors of
    /// `visitor`.
    pub fn visit(&self, mut visitor: impl FnMut(Document) -> Result<()>) -> Result<CorpusStats> {
        let mut stats = CorpusStats {
            skipped_links: self.skipped_links,
            repeats: self.inputs.iter().map(|input| input.repeats).sum(),
            ..CorpusStats::default()
        };
        for input in &self.inputs {
            let before = stats.clone();
            for file in &input.files {
                self.visit_file(file, &mut stats, &mut visitor)?;
            }
            let is_read = stats.documents > before.documents || input.repeats > 0;
            if input.is_folder && !is_read {
                return Err(match &self.options.text_key {
                    Some(key) if stats.skipped_not_lines > before.skipped_not_lines => {
                        Error::KeyWithoutLines {
                            location: input.path.display().to_string(),
                            key: key.clone(),
                            got: "a folder with other files only",
                        }
                    }
                    _ => nothing_in(input, &before, &stats),
                });
            }
        }
        Ok(stats)
    }

    fn visit_file(
        &self,
        file: &InputFile,
        stats: &mut CorpusStats,
        visitor: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<()> {
        let before = stats.documents;
        let mut sink = read::Sink {
            options: &self.options,
            stats,
            visitor,
        };
        match read::documents(file, &mut sink)? {
            read::Outcome::Binary => stats.skipped_binary_files += 1,
            read::Outcome::Foreign(format) => {
                *stats.skipped_formats.entry(format.to_owned()).or_default() += 1;
            }
            read::Outcome::NotLines => {
                stats.skipped_not_lines += 1;
                if stats.first_not_lines.len() < NAMES_KEPT {
                    let name = file.path.display().to_string();
                    stats.first_not_lines.push(name);
                }
            }
            read::Outcome::Empty if file.is_named => {
                return Err(no_text(file, "a file with text", "an empty file"));
            }
            read::Outcome::Empty => stats.skipped_empty_files += 1,
            read::Outcome::Read if stats.documents > before => stats.files += 1,
            read::Outcome::Read if file.is_named => {
                let expected = "at least one document with text";
                return Err(no_text(file, expected, "only empty ones"));
            }
            read::Outcome::Read => {}
        }
        Ok(())
    }
}

fn no_text(file: &InputFile, expected: &'static str, got: &str) -> Error {
    Error::NoText {
        location: file.path.display().to_string(),
        expected,
        got: got.into(),
    }
}

/// The error for a folder that has no file with a document.
fn nothing_in(input: &walk::Input, before: &CorpusStats, after: &CorpusStats) -> Error {
    let foreign = |stats: &CorpusStats| stats.skipped_formats.values().sum::<u64>();
    let mut got = format!(
        "{} files, of which {} binary and {} empty",
        input.files.len(),
        after.skipped_binary_files - before.skipped_binary_files,
        after.skipped_empty_files - before.skipped_empty_files,
    );
    let formats = foreign(after) - foreign(before);
    if formats > 0 {
        let names: Vec<&str> = after.skipped_formats.keys().map(String::as_str).collect();
        got += &format!(
            " and {formats} of formats that are not read ({})",
            names.join(", ")
        );
    }
    Error::NoText {
        location: input.path.display().to_string(),
        expected: "a folder with at least one text file",
        got,
    }
}
