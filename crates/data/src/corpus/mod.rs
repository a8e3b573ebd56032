//! Documents from files and folders.
//!
//! | name                    | documents |
//! |-------------------------|-----------|
//! | `*.jsonl`, `*.ndjson`   | one per line: the string at [`CorpusOptions::text_key`] |
//! | any other file          | one: the whole file |
//! | either with `.gz`/`.zst`| the same, decompressed while it is read |
//! | a folder                | its files in the order of their names, folder by folder |
//!
//! Memory is bounded by one document: a JSON Lines file is read line by line.

mod read;
mod walk;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use walk::InputFile;

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
    /// The key of the text in JSON Lines; default `"text"`.
    pub text_key: String,
    /// Largest document accepted, decompressed; default 1 GiB. It bounds the memory that a small
    /// compressed file can claim.
    pub max_document_bytes: u64,
}

impl CorpusOptions {
    /// The defaults for these inputs.
    pub fn new(inputs: Vec<PathBuf>) -> Self {
        Self {
            inputs,
            text_key: "text".into(),
            max_document_bytes: 1 << 30,
        }
    }
}

/// What a pass over a corpus met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusStats {
    /// Files that gave at least one document.
    pub files: u64,
    /// Documents given to the visitor.
    pub documents: u64,
    /// UTF-8 bytes of their text.
    pub text_bytes: u64,
    /// Files in folders skipped because they are not UTF-8 text.
    pub skipped_binary_files: u64,
    /// Files in folders skipped because they are empty.
    pub skipped_empty_files: u64,
    /// Links in folders that lead nowhere or back to a folder above.
    pub skipped_links: u64,
    /// JSON lines whose text is the empty string.
    pub skipped_empty_documents: u64,
}

/// The files of a set of inputs, in a fixed order.
#[derive(Debug)]
pub struct Corpus {
    options: CorpusOptions,
    inputs: Vec<walk::Input>,
    skipped_links: u64,
}

impl Corpus {
    /// Finds the files; reads none of them.
    ///
    /// Hidden files and folders inside a folder (names that start with a dot) are left out.
    ///
    /// # Errors
    /// No inputs, an input that is missing or is neither file nor folder, an unreadable folder.
    pub fn open(options: CorpusOptions) -> Result<Self> {
        if options.inputs.is_empty() {
            return Err(Error::NoInput);
        }
        let mut skipped_links = 0;
        let inputs = options
            .inputs
            .iter()
            .map(|path| walk::expand(path, &mut skipped_links))
            .collect::<Result<_>>()?;
        Ok(Self {
            options,
            inputs,
            skipped_links,
        })
    }

    /// What was asked for.
    pub fn options(&self) -> &CorpusOptions {
        &self.options
    }

    /// Gives every document to `visitor`, in the same order each time.
    ///
    /// # Errors
    /// A file that cannot be read, decompressed or parsed; a file named explicitly that is empty or
    /// not UTF-8; a folder without any text; whatever `visitor` returns.
    pub fn visit(&self, mut visitor: impl FnMut(Document) -> Result<()>) -> Result<CorpusStats> {
        let mut stats = CorpusStats {
            skipped_links: self.skipped_links,
            ..CorpusStats::default()
        };
        for input in &self.inputs {
            let before = stats.clone();
            for file in &input.files {
                self.visit_file(file, &mut stats, &mut visitor)?;
            }
            if input.is_folder && stats.documents == before.documents {
                return Err(Error::NoText {
                    location: input.path.display().to_string(),
                    expected: "a folder with at least one text file",
                    got: format!(
                        "{} files, of which {} binary and {} empty",
                        input.files.len(),
                        stats.skipped_binary_files - before.skipped_binary_files,
                        stats.skipped_empty_files - before.skipped_empty_files,
                    ),
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
        let outcome = read::documents(file, &self.options, &mut |document| {
            if document.text.is_empty() {
                stats.skipped_empty_documents += 1;
                return Ok(());
            }
            stats.documents += 1;
            stats.text_bytes += document.text.len() as u64;
            visitor(document)
        })?;
        match outcome {
            read::Outcome::Binary => stats.skipped_binary_files += 1,
            read::Outcome::Empty if file.is_named => {
                return Err(Error::NoText {
                    location: file.path.display().to_string(),
                    expected: "a file with text",
                    got: "an empty file".into(),
                });
            }
            read::Outcome::Empty => stats.skipped_empty_files += 1,
            read::Outcome::Read if stats.documents > before => stats.files += 1,
            read::Outcome::Read if file.is_named => {
                return Err(Error::NoText {
                    location: file.path.display().to_string(),
                    expected: "at least one document with text",
                    got: "only empty ones".into(),
                });
            }
            read::Outcome::Read => {}
        }
        Ok(())
    }
}
