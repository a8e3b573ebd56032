//! Token data of Megatron-LM and GPT-NeoX, the memory-mapped kind.
//!
//! `PREFIX.bin` holds the tokens of all sequences one after the other, `PREFIX.idx` the start of each; all numbers are
//! little-endian:
//!
//! | offset | type | content |
//! |---|---|---|
//! | 0 | 9 bytes | `MMIDIDX` and two zeros |
//! | 9 | u64 | version, 1 |
//! | 17 | u8 | type of a token: 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16 (6 and 7 are floating-point) |
//! | 18 | u64 | sequences S |
//! | 26 | u64 | entries of the document index D |
//! | 34 | i32\[S\] | tokens of each sequence |
//! | 34+4S | i64\[S\] | first byte of each sequence in `.bin` |
//! | 34+12S | i64\[D\] | first sequence of each document, then S |
//!
//! The arrays are not aligned. GPT-NeoX writes one sequence per document. Source: `megatron/data/indexed_dataset.py`.

mod read;
mod write;

use std::path::{Path, PathBuf};

pub use read::MegatronData;
pub use write::MegatronWriter;

const MAGIC: &[u8] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;
const HEADER_BYTES: usize = 34;

/// The type of a token in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// Unsigned, 16 bits.
    U16,
}

impl TokenType {
    /// The type that Megatron's tools choose for a vocabulary.
    pub fn for_vocab(vocab_size: u64) -> TokenType {
        const U16_BELOW: u64 = 65_500;
        if vocab_size < U16_BELOW {
            TokenType::U16
        } else {
            TokenType::I32
        }
    }

    /// Bytes of one token.
    pub fn size_bytes(self) -> usize {
        match self {
            TokenType::U8 | TokenType::I8 => 1,
            TokenType::I16 | TokenType::U16 => 2,
            TokenType::I32 => 4,
            TokenType::I64 => 8,
        }
    }

    fn from_code(code: u8) -> Option<TokenType> {
        Some(match code {
            1 => TokenType::U8,
            2 => TokenType::I8,
            3 => TokenType::I16,
            4 => TokenType::I32,
            5 => TokenType::I64,
            8 => TokenType::U16,
            _ => return None,
        })
    }

    fn code(self) -> u8 {
        match self {
            TokenType::U8 => 1,
            TokenType::I8 => 2,
            TokenType::I16 => 3,
            TokenType::I32 => 4,
            TokenType::I64 => 5,
            TokenType::U16 => 8,
        }
    }
}

/// The two files of a prefix, `PREFIX.bin` and `PREFIX.idx`; the path of either file is accepted in place of the prefix.
pub fn files(path: &Path) -> [PathBuf; 2] {
    let prefix = match path.extension().and_then(|extension| extension.to_str()) {
        Some("bin" | "idx") => path.with_extension(""),
        _ => path.to_path_buf(),
    };
    [".bin", ".idx"].map(|end| {
        let mut name = prefix.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    })
}
