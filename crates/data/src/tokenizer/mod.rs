//! Encodes text as token ids and decodes them.
//!
//! There are two kinds: the bytes of UTF-8 themselves, and a byte-pair encoding in the Hugging Face `tokenizer.json`
//! format, read from a file or trained here. Text never becomes the end-of-document token, even if it contains the
//! token's name and the file says so: that token only marks the ends of documents.

mod bpe;
mod check;
mod classes;
mod cuts;
mod gpt2;
mod inside;
mod losses;
mod merges;
mod plain;
mod spec;
mod steps;
mod stream;
mod token_bytes;
mod train;
mod words;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use bpe::Bpe;

pub(crate) use bpe::EOD_NAMES;
pub(crate) use cuts::Cuts;
pub use losses::Losses;
pub use spec::TokenizerSpec;
pub use stream::DecodeStream;
pub use token_bytes::ByteCounts;
pub use train::MIN_BPE_VOCAB_SIZE;
pub(crate) use train::Trainer;

/// What [`Tokenizer::save`] writes for the byte tokenizer.
const BYTES_JSON: &str = "{\"version\":1,\"type\":\"bytes\"}\n";
const BYTES_EOD: u32 = 256;

/// Size limit of a `tokenizer.json`. The largest in use are around 30 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A tokenizer. Cloning is cheap.
///
/// ```
/// use tokenformer_data::Tokenizer;
///
/// let tokenizer = Tokenizer::bytes();
/// let ids = tokenizer.encode("né")?;
/// assert_eq!(ids, [0x6e, 0xc3, 0xa9]);
/// assert_eq!(tokenizer.decode(&ids), "né");
/// assert_eq!((tokenizer.vocab_size(), tokenizer.eod()), (257, Some(256)));
/// # Ok::<(), tokenformer_data::Error>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer(Kind);

#[derive(Clone)]
enum Kind {
    Bytes,
    Bpe(Arc<Bpe>),
}

impl Tokenizer {
    /// The byte tokenizer: ids 0 to 255 are the bytes, 256 is the end of a document.
    pub fn bytes() -> Self {
        Self(Kind::Bytes)
    }

    /// GPT-2's encoding: 50,257 ids, of which 50256 ends a document.
    pub fn gpt2() -> Self {
        // This is the constant table of a crate, not an input.
        Self::from_json(gpt2::json().to_vec(), "gpt2").expect("a constant, loaded in the tests")
    }

    /// The tokenizer of a specification; `None` if it has to be trained first.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_spec(spec: &TokenizerSpec) -> Result<Option<Self>> {
        Ok(match spec {
            TokenizerSpec::Bytes => Some(Self::bytes()),
            TokenizerSpec::Gpt2 => Some(Self::gpt2()),
            TokenizerSpec::File(path) => Some(Self::from_file(path)?),
            TokenizerSpec::TrainBpe { .. } => None,
        })
    }

    /// Reads a Hugging Face `tokenizer.json` with a BPE model, or what [`save`](Self::save) wrote.
    ///
    /// Padding, truncation, BPE dropout and the post-processor of the file are not applied: a training text is encoded
    /// completely, deterministically, and without added tokens.
    ///
    /// # Errors
    /// A file that cannot be read, is larger than 256 MiB, is not such a JSON, is inconsistent, or
    /// uses a part that is not supported.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(Error::io("read", path))?;
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        Self::from_json(bytes, &path.display().to_string())
    }

    /// Trains a byte-level BPE on `texts`: id 0 is `<|endoftext|>`, then come the 256 bytes, then
    /// the merges. `progress` is called with (merges found, merges wanted).
    ///
    /// The same texts give the same tokenizer for any number of threads. A short text can have fewer useful merges than
    /// requested; then the vocabulary is smaller.
    ///
    /// # Errors
    /// A vocabulary below [`MIN_BPE_VOCAB_SIZE`] or above 2^20.
    pub fn train_bpe(
        texts: impl IntoIterator<Item = String>,
        vocab_size: usize,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let mut trainer = train::Trainer::new(vocab_size)?;
        for text in texts {
            trainer.add(text);
        }
        trainer.finish(&mut progress)
    }

    /// Reads `bytes`, `gpt2`, `bpe:SIZE` or `FILE.json` as on the command line.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse_spec(spec: &str) -> Result<TokenizerSpec> {
        spec.parse()
    }

    fn from_json(bytes: Vec<u8>, location: &str) -> Result<Self> {
        let value = check::parse(&bytes, MAX_FILE_BYTES, location)?;
        if check::is_bytes(&value, location)? {
            return Ok(Self::bytes());
        }
        let bpe = Bpe::new(bytes, value, location)?;
        Ok(Self(Kind::Bpe(Arc::new(bpe))))
    }

    /// The ids of `text`, without an end-of-document token.
    ///
    /// # Errors
    /// A part of the BPE fails on this text: for example it needs an unknown token that it lacks, or a regular
    /// expression exceeds its limit.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_counted(text).map(|(ids, _)| ids)
    }

    /// As [`encode`](Self::encode), with the number of characters that the ids do not represent.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_counted(&self, text: &str) -> Result<(Vec<u32>, Losses)> {
        match &self.0 {
            Kind::Bytes => Ok((text.bytes().map(u32::from).collect(), Losses::default())),
            Kind::Bpe(bpe) => bpe.encode(text),
        }
    }

    /// Splits `text` into parts of about `part_bytes` whose ids, concatenated, are those of the text; one part if the
    /// encoding needs the whole text.
    pub(crate) fn parts<'a>(&self, text: &'a str, part_bytes: usize) -> Vec<&'a str> {
        let cuts = match &self.0 {
            Kind::Bytes => Cuts::Anywhere,
            Kind::Bpe(bpe) => bpe.cuts(),
        };
        cuts.divide(text, part_bytes)
    }

    /// Decodes `ids`. Bytes that are not UTF-8 become U+FFFD. Special tokens, including the end of a document, and ids
    /// outside the vocabulary produce no text.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = self.decode_stream();
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// Decodes ids while they are generated and never returns half a character. The first id begins a text.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        self.decode_stream_after(&[])
    }

    /// As [`decode_stream`](Self::decode_stream), for ids that continue after `before`, whose text is not returned:
    /// encodings that put a space in front of words remove it only at the beginning of a text.
    pub fn decode_stream_after(&self, before: &[u32]) -> DecodeStream<'_> {
        DecodeStream::new(self, before)
    }

    /// The bytes that an id stands for inside a text. Special tokens and ids outside the vocabulary have none. At the
    /// beginning of a text an encoding that puts a space in front of it leaves that one out.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match &self.0 {
            Kind::Bytes if id < BYTES_EOD => vec![id as u8],
            Kind::Bytes => Vec::new(),
            Kind::Bpe(bpe) => bpe.inside(id).bytes,
        }
    }

    /// Whether an id is a single byte, `<0xNN>`, of an encoding of characters: it stands for a part of a character that
    /// has no token, though the same byte may also be a token of its own.
    pub fn is_fallback_byte(&self, id: u32) -> bool {
        match &self.0 {
            Kind::Bytes => false,
            Kind::Bpe(bpe) => bpe.inside(id).is_byte,
        }
    }

    /// Number of token ids: every id is below it. It is the number of rows of an embedding, so it includes ids that a
    /// file leaves unused.
    pub fn vocab_size(&self) -> usize {
        match &self.0 {
            Kind::Bytes => BYTES_EOD as usize + 1,
            Kind::Bpe(bpe) => bpe.vocab_size(),
        }
    }

    /// The end-of-document token: the first of `<|endoftext|>`, `</s>` and `<eos>` that exists.
    pub fn eod(&self) -> Option<u32> {
        match &self.0 {
            Kind::Bytes => Some(BYTES_EOD),
            Kind::Bpe(bpe) => bpe.eod(),
        }
    }

    /// Writes the tokenizer so that [`from_file`](Self::from_file) reads it back: the byte tokenizer
    /// as `{"version":1,"type":"bytes"}`, a BPE as exactly the bytes that it was read from.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file = fs::File::create(path).map_err(Error::io("write", path))?;
        file.write_all(self.json())
            .and_then(|()| file.sync_all())
            .map_err(Error::io("write", path))
    }

    /// The bytes that [`save`](Self::save) writes.
    pub fn json(&self) -> &[u8] {
        match &self.0 {
            Kind::Bytes => BYTES_JSON.as_bytes(),
            Kind::Bpe(bpe) => bpe.json(),
        }
    }

    /// A short name: `bytes` or `bpe-4096`.
    pub fn name(&self) -> String {
        match &self.0 {
            Kind::Bytes => "bytes".into(),
            Kind::Bpe(bpe) => format!("bpe-{}", bpe.vocab_size()),
        }
    }

    /// A description in one line.
    pub fn describe(&self) -> String {
        let kind = match &self.0 {
            Kind::Bytes => "bytes of UTF-8",
            Kind::Bpe(_) => "byte-pair encoding",
        };
        let eod = match self.eod() {
            Some(id) => format!("end of document = {id}"),
            None => "no end-of-document token".into(),
        };
        format!("{kind}, {} tokens, {eod}", self.vocab_size())
    }

    /// BLAKE3 hash of the bytes that [`save`](Self::save) writes, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        blake3::hash(self.json()).to_hex().to_string()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({})", self.describe())
    }
}
