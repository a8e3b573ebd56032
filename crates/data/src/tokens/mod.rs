//! `*.tokens`: the token ids of a set of documents in one file, mapped into memory when read.
//!
//! All numbers are little-endian. Three parts follow each other without gaps:
//!
//! | offset | bytes | header |
//! |-------:|------:|--------|
//! |      0 |     8 | magic `TKFTOKEN` |
//! |      8 |     4 | format version, 1 |
//! |     12 |     4 | token width in bytes, 2 (vocabularies up to 65536) or 4 |
//! |     16 |     4 | vocabulary size; every id is below it |
//! |     20 |     4 | zero |
//! |     24 |     8 | token count N, at least 1 |
//! |     32 |     8 | document count D, at least 1 |
//! |     40 |     8 | bytes of UTF-8 text the tokens came from (for bits per byte) |
//! |     48 |    16 | zero |
//! |     64 |    32 | BLAKE3 of everything after the header |
//! |     96 |    32 | BLAKE3 of the 96 bytes before; identifies the whole file |
//!
//! Then N token ids of the given width, padded with zero bytes to a multiple of 8, then D document
//! starts of 8 bytes each: the index of a document's first token, strictly increasing from 0.
//! Each document ends with the tokenizer's end-of-document token if it has one.

mod header;
mod reader;
mod writer;

pub(crate) use header::MAGIC;
pub use reader::TokenFile;
pub(crate) use writer::{PARTIAL_PREFIX, Point, create_beside, publish};
pub use writer::{TokenFileWriter, Written};
