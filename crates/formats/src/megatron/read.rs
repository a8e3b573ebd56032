//! The reader, which maps both files and checks every number of the index once.

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{HEADER_BYTES, MAGIC, TokenType, VERSION, files};
use crate::error::shown;
use crate::{Error, Result, file};

const LENGTH_BYTES: usize = size_of::<i32>();
const POINTER_BYTES: usize = size_of::<i64>();

/// The magic bytes of the format that is not memory-mapped.
const MAGIC_CACHED: &[u8] = b"TNTIDX\0\0";

/// Open token data.
pub struct MegatronData {
    bin_path: PathBuf,
    index: Mmap,
    bin: Mmap,
    token: TokenType,
    sequences: usize,
    documents: usize,
}

impl MegatronData {
    /// Opens `PREFIX.bin` and `PREFIX.idx`, given the prefix or either path, and checks the whole index: its length is
    /// exact, sequences are in order without overlap and fill the `.bin` file, and documents are in order.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Unsupported`] (the older kind of index, tokens that are not integers), [`Error::Io`].
    pub fn open(path: &Path) -> Result<MegatronData> {
        let [bin_path, index_path] = files(path);
        let index = file::map(&index_path)?;
        let bin = file::map(&bin_path)?;
        let (token, sequences, entries) = header(&index_path, &index)?;
        let data = MegatronData {
            bin_path,
            index,
            bin,
            token,
            sequences,
            documents: entries - 1,
        };
        data.check(&index_path)?;
        Ok(data)
    }

    /// The path of the `.bin` file.
    pub fn path(&self) -> &Path {
        &self.bin_path
    }

    /// The type of a token in the file.
    pub fn token_type(&self) -> TokenType {
        self.token
    }

    /// The number of sequences.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// The number of tokens in all sequences.
    pub fn tokens(&self) -> u64 {
        (self.bin.len() / self.token.size_bytes()) as u64
    }

    /// The number of tokens of a sequence; `None` if the sequence does not exist.
    pub fn sequence_tokens(&self, sequence: usize) -> Option<usize> {
        (sequence < self.sequences).then_some(())?;
        // A checked index has no negative length.
        usize::try_from(self.raw_length(sequence)?).ok()
    }

    /// The sequences of a document; `None` if the document does not exist.
    pub fn document(&self, document: usize) -> Option<Range<usize>> {
        (document < self.documents).then_some(())?;
        Some(self.first_sequence(document)?..self.first_sequence(document + 1)?)
    }

    /// Reads tokens of a sequence, starting at its token `start`, until `out` is full.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], and [`Error::TokenRange`] for a token that is not in the range of `u32`.
    pub fn read(&self, sequence: usize, start: usize, out: &mut [u32]) -> Result<()> {
        let bytes = self.bytes(sequence).unwrap_or_default();
        let size = self.token.size_bytes();
        let wanted = start
            .checked_add(out.len())
            .filter(|&end| end <= bytes.len() / size)
            .and_then(|end| bytes.get(start * size..end * size));
        let wanted = wanted
            .filter(|_| sequence < self.sequences)
            .ok_or_else(|| Error::OutOfRange {
                path: self.bin_path.clone(),
                sequence,
                start,
                len: out.len(),
                available: bytes.len() / size,
            })?;
        let mut out = out.iter_mut();
        self.for_each(wanted, |position, token| {
            match (out.next(), u32::try_from(token)) {
                (Some(slot), Ok(token)) => {
                    *slot = token;
                    Ok(())
                }
                _ => Err(self.token_range(sequence, (start + position) as u64, token, 1 << 32)),
            }
        })
    }

    /// Returns an error if a token is outside the vocabulary; reads all data.
    ///
    /// # Errors
    /// [`Error::TokenRange`].
    pub fn check_vocab(&self, vocab_size: u64) -> Result<()> {
        (0..self.sequences).try_for_each(|sequence| {
            self.for_each(
                self.bytes(sequence).unwrap_or_default(),
                |position, token| match u64::try_from(token) {
                    Ok(id) if id < vocab_size => Ok(()),
                    _ => Err(self.token_range(sequence, position as u64, token, vocab_size)),
                },
            )
        })
    }

    fn token_range(
        &self,
        sequence: usize,
        position_tokens: u64,
        token: i64,
        vocab_size: u64,
    ) -> Error {
        Error::TokenRange {
            path: self.bin_path.clone(),
            sequence,
            position_tokens,
            token,
            vocab_size,
        }
    }

    fn for_each(&self, bytes: &[u8], mut take: impl FnMut(usize, i64) -> Result<()>) -> Result<()> {
        fn all<const N: usize>(
            bytes: &[u8],
            token: fn([u8; N]) -> i64,
            take: &mut impl FnMut(usize, i64) -> Result<()>,
        ) -> Result<()> {
            let tokens = bytes.as_chunks::<N>().0.iter().copied().map(token);
            tokens
                .enumerate()
                .try_for_each(|(position, token)| take(position, token))
        }
        match self.token {
            TokenType::U8 => all(bytes, |b| u8::from_le_bytes(b).into(), &mut take),
            TokenType::I8 => all(bytes, |b| i8::from_le_bytes(b).into(), &mut take),
            TokenType::I16 => all(bytes, |b| i16::from_le_bytes(b).into(), &mut take),
            TokenType::U16 => all(bytes, |b| u16::from_le_bytes(b).into(), &mut take),
            TokenType::I32 => all(bytes, |b| i32::from_le_bytes(b).into(), &mut take),
            TokenType::I64 => all(bytes, i64::from_le_bytes, &mut take),
        }
    }

    /// The bytes of a sequence.
    fn bytes(&self, sequence: usize) -> Option<&[u8]> {
        let length = self
            .sequence_tokens(sequence)?
            .checked_mul(self.token.size_bytes())?;
        let start = self.pointer(sequence)?;
        self.bin.get(start..start.checked_add(length)?)
    }

    fn pointer(&self, sequence: usize) -> Option<usize> {
        usize::try_from(self.raw_pointer(sequence)?).ok()
    }

    /// Entry `entry` of the document index.
    fn first_sequence(&self, entry: usize) -> Option<usize> {
        usize::try_from(self.raw_first_sequence(entry)?).ok()
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.index.get(at..)?.first_chunk().copied()
    }

    fn check(&self, index_path: &Path) -> Result<()> {
        let mut end = 0;
        for sequence in 0..self.sequences {
            end = self.sequence_end(index_path, sequence, end)?;
        }
        if end != self.bin.len() {
            return Err(damaged(
                &self.bin_path,
                "the file is longer than its index says".into(),
                format!("{end} bytes"),
                format!("{} bytes", self.bin.len()),
            ));
        }
        let mut before = 0;
        for entry in 0..=self.documents {
            before = self.document_start(index_path, entry, before)?;
        }
        Ok(())
    }

    /// The end of a sequence in the `.bin` file in bytes, given the end of the one before.
    fn sequence_end(&self, index_path: &Path, sequence: usize, end: usize) -> Result<usize> {
        let wrong = |what: &str, expected: String, got: String| {
            damaged(
                index_path,
                format!("sequence {sequence} {what}"),
                expected,
                got,
            )
        };
        let tokens = self.sequence_tokens(sequence);
        let length = tokens
            .and_then(|tokens| tokens.checked_mul(self.token.size_bytes()))
            .ok_or_else(|| {
                wrong(
                    "has a negative length",
                    "a length from 0 tokens".into(),
                    self.raw_length(sequence)
                        .map_or_else(String::new, |length| format!("{length} tokens")),
                )
            })?;
        if self.pointer(sequence) != Some(end) {
            return Err(wrong(
                "does not begin where the one before ends",
                format!("byte {end}"),
                self.raw_pointer(sequence)
                    .map_or_else(String::new, |pointer| format!("byte {pointer}")),
            ));
        }
        let left = self.bin.len() - end;
        if length > left {
            return Err(wrong(
                "ends after the .bin file",
                format!("at most {left} bytes from byte {end}, where the file ends"),
                format!("{length} bytes from byte {end}"),
            ));
        }
        Ok(end + length)
    }

    /// The first sequence of an entry of the document index, given that of the previous entry.
    fn document_start(&self, index_path: &Path, entry: usize, before: usize) -> Result<usize> {
        let first = self.first_sequence(entry);
        let expected = match entry {
            0 => "0, the first sequence".into(),
            _ if entry == self.documents => {
                format!("{}, the number of sequences", self.sequences)
            }
            _ => format!(
                "a number from {before}, that of the entry before, to {}, the number of sequences",
                self.sequences
            ),
        };
        first
            .filter(|&first| {
                (before..=self.sequences).contains(&first)
                    && (entry > 0 || first == 0)
                    && (entry < self.documents || first == self.sequences)
            })
            .ok_or_else(|| {
                damaged(
                    index_path,
                    format!("entry {entry} of the document index is wrong"),
                    expected,
                    self.raw_first_sequence(entry)
                        .map_or_else(String::new, |first| first.to_string()),
                )
            })
    }

    fn raw_length(&self, sequence: usize) -> Option<i32> {
        self.array(HEADER_BYTES + sequence * LENGTH_BYTES)
            .map(i32::from_le_bytes)
    }

    fn raw_pointer(&self, sequence: usize) -> Option<i64> {
        let pointers = HEADER_BYTES + self.sequences * LENGTH_BYTES;
        self.array(pointers + sequence * POINTER_BYTES)
            .map(i64::from_le_bytes)
    }

    fn raw_first_sequence(&self, entry: usize) -> Option<i64> {
        let documents = HEADER_BYTES + self.sequences * (LENGTH_BYTES + POINTER_BYTES);
        self.array(documents + entry * POINTER_BYTES)
            .map(i64::from_le_bytes)
    }
}

/// The token type, the number of sequences and the number of document entries.
fn header(path: &Path, index: &[u8]) -> Result<(TokenType, usize, usize)> {
    if index.starts_with(MAGIC_CACHED) {
        return Err(Error::Unsupported {
            location: path.display().to_string(),
            what: "an index of the kinds \"cached\" and \"lazy\", which are not read".into(),
            help: "make the data again with --dataset-impl mmap",
        });
    }
    let start = index
        .get(..HEADER_BYTES)
        .filter(|start| start.starts_with(MAGIC))
        .ok_or_else(|| {
            damaged(
                path,
                "not an index of token data".into(),
                format!("{HEADER_BYTES} bytes or more, the first of them MMIDIDX"),
                match index.len() {
                    length @ ..HEADER_BYTES => format!("{length} bytes"),
                    _ => shown(&String::from_utf8_lossy(
                        index.get(..MAGIC.len()).unwrap_or(index),
                    )),
                },
            )
        })?;
    let number = |at: usize| {
        start
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let version = number(9);
    if version != VERSION {
        return Err(damaged(
            path,
            "an unknown version of the index".into(),
            VERSION.to_string(),
            version.to_string(),
        ));
    }
    let code = start.get(17).copied().unwrap_or(0);
    let token = match (TokenType::from_code(code), code) {
        (Some(token), _) => token,
        (None, 6 | 7) => {
            return Err(Error::Unsupported {
                location: path.display().to_string(),
                what: format!("the data are floating-point numbers (code {code}), not tokens"),
                help: "check that this is the data you mean",
            });
        }
        (None, _) => {
            return Err(damaged(
                path,
                "an unknown type of tokens".into(),
                "a code from 1 to 5, or 8".into(),
                code.to_string(),
            ));
        }
    };
    let (sequences, entries) = (number(18), number(26));
    let expected = sequences
        .checked_mul((LENGTH_BYTES + POINTER_BYTES) as u64)
        .and_then(|bytes| bytes.checked_add(entries.checked_mul(POINTER_BYTES as u64)?))
        .and_then(|bytes| bytes.checked_add(HEADER_BYTES as u64));
    if entries == 0 {
        return Err(damaged(
            path,
            "the document index is empty".into(),
            "1 entry or more: the first sequence of each document, and the number of sequences"
                .into(),
            "0 entries".into(),
        ));
    }
    if expected != Some(index.len() as u64) {
        return Err(damaged(
            path,
            "the index has another length than its numbers of sequences and documents ask for"
                .into(),
            expected.map_or_else(
                || "a possible length".into(),
                |bytes| format!("{bytes} bytes"),
            ),
            format!(
                "{} bytes, {sequences} sequences, {entries} document entries",
                index.len()
            ),
        ));
    }
    // Both numbers are smaller than the file.
    Ok((token, sequences as usize, entries as usize))
}

fn damaged(path: &Path, what: String, expected: String, got: String) -> Error {
    Error::Damaged {
        location: path.display().to_string(),
        what,
        expected,
        got,
        help: "the files are damaged or do not belong together; copy or make them again",
    }
}
