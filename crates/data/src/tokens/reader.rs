//! Reads a token file through a memory map.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::header::{HEADER_BYTES, Header, hex_start};
use crate::error::{Error, Result};

/// Bytes that are hashed and range-checked at a time; a multiple of both token widths.
const CHUNK_BYTES: usize = 1 << 20;

/// An open token file, which was verified completely when it was opened.
///
/// The file is mapped, so it must not be changed while it is open. This crate never does: it replaces files by
/// renaming, and the mapping keeps the old one.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
    hash: [u8; 32],
    token_bytes: usize,
    len: usize,
    doc_count: usize,
}

impl TokenFile {
    /// Maps the file and checks all of it: header, length, hash, id range, document starts.
    ///
    /// # Errors
    /// A file that cannot be read, or that is not exactly what a [`TokenFileWriter`] writes.
    ///
    /// [`TokenFileWriter`]: super::TokenFileWriter
    pub fn open(path: &Path) -> Result<Self> {
        let refuse = |(problem, expected, got): (_, _, _)| Error::TokenFile {
            path: path.to_owned(),
            problem,
            expected,
            got,
        };
        let file = File::open(path).map_err(Error::io("read", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        if !metadata.is_file() {
            return Err(Error::NotAFile {
                path: path.to_owned(),
            });
        }
        let file_bytes = metadata.len();
        let too_short = || {
            let expected = format!("at least the {HEADER_BYTES} bytes of the header");
            refuse((
                "the file is cut short",
                expected,
                format!("{file_bytes} bytes"),
            ))
        };
        if file_bytes < HEADER_BYTES as u64 {
            return Err(too_short());
        }
        // SAFETY: the mapping is read-only, and the crate replaces token files by renaming, never in place. So the
        // mapped bytes do not change as long as other programs do not change the file, which the documentation of this
        // type requires.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let (head, body) = map.split_first_chunk().ok_or_else(too_short)?;
        let (header, hash) = Header::parse(head).map_err(refuse)?;
        let sizes = header.sizes().filter(|&(_, bytes)| bytes == file_bytes);
        let token_bytes = sizes.and_then(|(bytes, _)| usize::try_from(bytes).ok());
        let counts = usize::try_from(header.token_count)
            .ok()
            .zip(usize::try_from(header.doc_count).ok());
        let (Some(token_bytes), Some((len, doc_count))) = (token_bytes, counts) else {
            let expected = match header.sizes() {
                Some((_, bytes)) => format!("{bytes} bytes, as the header says"),
                None => "fewer than 2^64 bytes".to_owned(),
            };
            let got = format!("{file_bytes} bytes");
            return Err(refuse(("the length is wrong", expected, got)));
        };
        check_body(&header, body, token_bytes).map_err(refuse)?;
        Ok(Self {
            path: path.to_owned(),
            token_bytes,
            len,
            doc_count,
            hash,
            header,
            map,
        })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a token file is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of documents, at least 1.
    pub fn doc_count(&self) -> usize {
        self.doc_count
    }

    /// Every token id is below this.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// Bytes of UTF-8 text that the tokens came from.
    pub fn text_bytes(&self) -> u64 {
        self.header.text_bytes
    }

    /// The hash of the whole file, in hexadecimal.
    pub fn hash(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex().to_string()
    }

    /// Fills `tokens` with the ids starting at `start`.
    ///
    /// # Errors
    /// The file has fewer than `start + tokens.len()` tokens.
    pub fn read(&self, start: usize, tokens: &mut [u32]) -> Result<()> {
        let end = start
            .checked_add(tokens.len())
            .filter(|&end| end <= self.len);
        let Some(end) = end else {
            return Err(Error::OutOfRange {
                start,
                len: tokens.len(),
                available: self.len,
            });
        };
        let bytes = &self.map[HEADER_BYTES..HEADER_BYTES + self.token_bytes];
        if self.header.width == 2 {
            let (pairs, _) = bytes[start * 2..end * 2].as_chunks();
            for (token, bytes) in tokens.iter_mut().zip(pairs) {
                *token = u16::from_le_bytes(*bytes).into();
            }
        } else {
            let (quads, _) = bytes[start * 4..end * 4].as_chunks();
            for (token, bytes) in tokens.iter_mut().zip(quads) {
                *token = u32::from_le_bytes(*bytes);
            }
        }
        Ok(())
    }

    /// The token indices of document `doc`, including its end-of-document token.
    pub fn doc_bounds(&self, doc: usize) -> Option<Range<usize>> {
        let start = self.doc_start(doc)?;
        let end = self.doc_start(doc + 1).unwrap_or(self.len);
        Some(start..end)
    }

    fn doc_start(&self, doc: usize) -> Option<usize> {
        if doc >= self.doc_count {
            return None;
        }
        let starts = self
            .map
            .get(HEADER_BYTES + self.token_bytes.next_multiple_of(8)..)?;
        let (starts, _) = starts.as_chunks();
        starts
            .get(doc)
            .and_then(|start| usize::try_from(u64::from_le_bytes(*start)).ok())
    }
}

/// One pass over everything after the header; the length was checked before.
fn check_body(
    header: &Header,
    body: &[u8],
    token_bytes: usize,
) -> Result<(), super::header::Refusal> {
    let (tokens, rest) = body.split_at(token_bytes);
    let (padding, starts) = rest.split_at(token_bytes.next_multiple_of(8) - token_bytes);
    let mut hasher = blake3::Hasher::new();
    let mut max = 0;
    for chunk in tokens.chunks(CHUNK_BYTES) {
        hasher.update(chunk);
        let chunk_max = if header.width == 2 {
            let ids = chunk.as_chunks().0.iter();
            ids.map(|id| u32::from(u16::from_le_bytes(*id))).max()
        } else {
            let ids = chunk.as_chunks().0.iter();
            ids.map(|id| u32::from_le_bytes(*id)).max()
        };
        max = max.max(chunk_max.unwrap_or(0));
    }
    hasher.update(rest);
    let hash = *hasher.finalize().as_bytes();
    if hash != header.body_hash {
        return Err((
            "the content is damaged",
            format!("the content hash {}", hex_start(&header.body_hash)),
            hex_start(&hash),
        ));
    }
    if max >= header.vocab_size {
        return Err((
            "a token is outside the vocabulary",
            format!("ids below {}", header.vocab_size),
            format!("the id {max}"),
        ));
    }
    if padding.iter().any(|&byte| byte != 0) {
        return Err((
            "the padding is not zero",
            "zero bytes".to_owned(),
            format!("{padding:?}"),
        ));
    }
    let mut last = None;
    for start in starts.as_chunks().0 {
        let start = u64::from_le_bytes(*start);
        let is_next = match last {
            None => start == 0,
            Some(last) => start > last,
        };
        if !is_next || start >= header.token_count {
            return Err((
                "the document starts are wrong",
                format!(
                    "starts that increase from 0 to below {}",
                    header.token_count
                ),
                format!("{start} after {last:?}"),
            ));
        }
        last = Some(start);
    }
    Ok(())
}
