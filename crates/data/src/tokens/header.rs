//! The first 128 bytes of a token file.

/// Length of the header in bytes.
pub(super) const HEADER_BYTES: usize = 128;
pub(crate) const MAGIC: [u8; 8] = *b"TKFTOKEN";
pub(super) const VERSION: u32 = 1;
/// Offset of the hash of the header itself.
const SEAL_AT: usize = 96;

/// The numbers in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub width: u32,
    pub vocab_size: u32,
    pub token_count: u64,
    pub doc_count: u64,
    pub text_bytes: u64,
    pub body_hash: [u8; 32],
}

/// Why 128 bytes are not a valid header: (problem, expected, got).
pub(super) type Refusal = (&'static str, String, String);

impl Header {
    /// The header as it is in the file, and its hash.
    pub(super) fn to_bytes(self) -> ([u8; HEADER_BYTES], [u8; 32]) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.width.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.vocab_size.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.token_count.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.doc_count.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.text_bytes.to_le_bytes());
        bytes[64..96].copy_from_slice(&self.body_hash);
        let seal = *blake3::hash(&bytes[..SEAL_AT]).as_bytes();
        bytes[SEAL_AT..].copy_from_slice(&seal);
        (bytes, seal)
    }

    /// Reads and checks a header; returns it with its hash.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, [u8; 32]), Refusal> {
        let u32_at = |at| u32::from_le_bytes(array(bytes, at));
        let u64_at = |at| u64::from_le_bytes(array(bytes, at));
        if array(bytes, 0) != MAGIC {
            let got = String::from_utf8_lossy(&bytes[..8])
                .escape_debug()
                .to_string();
            let expected = "a file that starts with TKFTOKEN".to_owned();
            return Err(("not a token file", expected, format!("\"{got}\"")));
        }
        if u32_at(8) != VERSION {
            let expected = format!("version {VERSION}");
            return Err(("unknown format version", expected, u32_at(8).to_string()));
        }
        let header = Self {
            width: u32_at(12),
            vocab_size: u32_at(16),
            token_count: u64_at(24),
            doc_count: u64_at(32),
            text_bytes: u64_at(40),
            body_hash: array(bytes, 64),
        };
        // Writing it again also checks that the reserved bytes are zero.
        let (rebuilt, seal) = header.to_bytes();
        if rebuilt != *bytes {
            return Err((
                "the header is damaged",
                format!("the header hash {}", hex_start(&seal)),
                hex_start(&array::<32>(bytes, SEAL_AT)),
            ));
        }
        let width_fits = header.width == 2 && header.vocab_size <= 1 << 16 || header.width == 4;
        if !width_fits || header.vocab_size == 0 {
            return Err((
                "the token width does not fit the vocabulary",
                "width 2 up to 65536 tokens, or width 4".to_owned(),
                format!("width {}, {} tokens", header.width, header.vocab_size),
            ));
        }
        if header.token_count == 0 || header.doc_count == 0 || header.doc_count > header.token_count
        {
            return Err((
                "the counts do not fit together",
                "at least one document, and a token or more in each".to_owned(),
                format!(
                    "{} tokens, {} documents",
                    header.token_count, header.doc_count
                ),
            ));
        }
        Ok((header, seal))
    }

    /// Bytes of the token ids without padding, and of the whole file; `None` if beyond 64 bits.
    pub(super) fn sizes(&self) -> Option<(u64, u64)> {
        let token_bytes = self.token_count.checked_mul(u64::from(self.width))?;
        let padded = token_bytes.checked_next_multiple_of(8)?;
        let file_bytes = self
            .doc_count
            .checked_mul(8)?
            .checked_add(padded)?
            .checked_add(HEADER_BYTES as u64)?;
        Some((token_bytes, file_bytes))
    }
}

fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

/// The first digits of a hash, for messages.
pub(super) fn hex_start(hash: &[u8; 32]) -> String {
    let hex = blake3::Hash::from_bytes(*hash).to_hex();
    format!("{}…", &hex[..16])
}
