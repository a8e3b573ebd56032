//! The reader: both files mapped, every number of the index checked once.

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{HEADER_BYTES, MAGIC, TokenType, VERSION, files};
use crate::{Error, Result, file};

const LENGTH_BYTES: usize = size_of::<i32>();
const POINTER_BYTES: usize = size_of::<i64>();

/// The magic of the kind that is not memory-mapped.
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
    /// Opens `PREFIX.bin` and `PREFIX.idx`, given the prefix or either path, and checks the whole index: it has exactly
    /// its length, sequences lie in order without overlap and fill the `.bin` file, documents are in order.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Unsupported`] (the older kind of index, tokens that are not integers), [`Error::Io`].
    pub fn open(path: &Path) -> Result<MegatronData> {
        let (bin_path, index_path) = files(path);
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

    /// The tokens of all sequences.
    pub fn tokens(&self) -> u64 {
        (self.bin.len() / self.token.size_bytes()) as u64
    }

    /// The tokens of a sequence; `None` where there is no such sequence.
    pub fn sequence_tokens(&self, sequence: usize) -> Option<usize> {
        (sequence < self.sequences).then_some(())?;
        // Never negative in a checked index.
        usize::try_from(i32::from_le_bytes(
            self.array(HEADER_BYTES + sequence * LENGTH_BYTES)?,
        ))
        .ok()
    }

    /// The sequences of a document; `None` where there is no such document.
    pub fn document(&self, document: usize) -> Option<Range<usize>> {
        (document < self.documents).then_some(())?;
        Some(self.first_sequence(document)?..self.first_sequence(document + 1)?)
    }

    /// Reads tokens of a sequence, from its token `start`, until `out` is full.
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

    /// Refuses data with a token outside a vocabulary; reads all of it.
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
        let pointers = HEADER_BYTES + self.sequences * LENGTH_BYTES;
        usize::try_from(i64::from_le_bytes(
            self.array(pointers + sequence * POINTER_BYTES)?,
        ))
        .ok()
    }

    /// Entry `index` of the document index.
    fn first_sequence(&self, index: usize) -> Option<usize> {
        let documents = HEADER_BYTES + self.sequences * (LENGTH_BYTES + POINTER_BYTES);
        usize::try_from(i64::from_le_bytes(
            self.array(documents + index * POINTER_BYTES)?,
        ))
        .ok()
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.index.get(at..)?.first_chunk().copied()
    }

    fn check(&self, index_path: &Path) -> Result<()> {
        let mut end = 0;
        for sequence in 0..self.sequences {
            let length = self
                .sequence_tokens(sequence)
                .and_then(|tokens| tokens.checked_mul(self.token.size_bytes()));
            let pointer = self.pointer(sequence);
            match (pointer, length) {
                (Some(pointer), Some(length))
                    if pointer == end && length <= self.bin.len() - end =>
                {
                    end += length
                }
                _ => {
                    return Err(damaged(
                        index_path,
                        format!(
                            "sequence {sequence} is not where the one before ends, or is longer than the .bin file"
                        ),
                        format!("at most {} bytes from byte {end}", self.bin.len() - end),
                        format!(
                            "{} bytes from byte {}",
                            or_negative(length),
                            or_negative(pointer)
                        ),
                    ));
                }
            }
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
            let first = self.first_sequence(entry);
            let fits = first.is_some_and(|first| {
                first >= before
                    && first <= self.sequences
                    && (entry > 0 || first == 0)
                    && (entry < self.documents || first == self.sequences)
            });
            if !fits {
                return Err(damaged(
                    index_path,
                    format!("entry {entry} of the document index is out of order"),
                    format!("numbers from 0 to {} that never fall", self.sequences),
                    format!("{} after {before}", or_negative(first)),
                ));
            }
            before = first.unwrap_or(before);
        }
        Ok(())
    }
}

fn or_negative(number: Option<usize>) -> String {
    number.map_or_else(|| "a negative number".into(), |number| number.to_string())
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
                format!("{HEADER_BYTES} bytes that begin with MMIDIDX"),
                format!("{} bytes", index.len()),
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
    if expected != Some(index.len() as u64) || entries == 0 {
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
    // Both are smaller than the file.
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
