//! An open file that is decompressed while it is read, and its format by its first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use super::format::{self, Foreign, Format};
use super::gzip;
use super::zstd::{self, MAX_WINDOW_BYTES, WindowTooLarge};
use crate::error::{Error, Result};

/// Number of first bytes that are inspected.
const HEAD_BYTES: u64 = 8 << 10;
const BUFFER_BYTES: usize = 64 << 10;

/// A file's content as a stream.
pub(super) struct Source<'a> {
    path: &'a Path,
    reader: Reader,
    /// The compression, for messages.
    compression: Option<&'static str>,
    /// The extension without that of the compression, in lower case.
    extension: String,
    /// The first bytes, decompressed.
    pub(super) head: Vec<u8>,
    /// The format of the content if it is not text.
    pub(super) foreign: Option<Foreign>,
}

impl<'a> Source<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let error = || Error::io("read", path);
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(error())?);
        let extension = extension(path);
        let format = match (format::of(file.fill_buf().map_err(error())?), &*extension) {
            // A file that is named as compressed but is not is treated as damaged: the decoder returns the error.
            (Format::Other, "gz") => Format::Gzip,
            (Format::Other, "zst") => Format::Zstd,
            (format, _) => format,
        };
        let (reader, compression): (Box<dyn BufRead>, _) = match format {
            Format::Gzip => (buffered(gzip::Decoder::new(file)), Some("gzip")),
            Format::Zstd => (buffered(zstd::Decoder::new(file)), Some("zstd")),
            Format::Foreign(_) | Format::Other => (Box::new(file), None),
        };
        let inner = match (&compression, &*extension) {
            (Some(_), "gz" | "zst") => {
                self::extension(Path::new(path.file_stem().unwrap_or_default()))
            }
            _ => extension,
        };
        let mut source = Self {
            path,
            reader: Reader {
                back: Cursor::default(),
                rest: reader,
            },
            compression,
            extension: inner,
            head: Vec::new(),
            foreign: None,
        };
        source.look_ahead()?;
        Ok(source)
    }

    /// Reads the head and puts it back in front of the rest.
    fn look_ahead(&mut self) -> Result<()> {
        let mut head = Vec::new();
        if let Err(error) = (&mut self.reader).take(HEAD_BYTES).read_to_end(&mut head) {
            return Err(self.error(error));
        }
        self.foreign = match format::of(&head) {
            Format::Foreign(foreign) => Some(foreign),
            Format::Gzip | Format::Zstd if self.compression.is_some() => Some(Foreign {
                name: "compressed twice",
                help: "decompress it once first",
            }),
            _ => None,
        };
        self.put_back(head.clone());
        self.head = head;
        Ok(())
    }

    /// Makes `bytes` the next ones to be read. Only bytes that were just read may be put back.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(self.reader.left());
        self.reader.back = Cursor::new(bytes);
    }

    pub(super) fn reader(&mut self) -> &mut impl BufRead {
        &mut self.reader
    }

    pub(super) fn has_extension(&self, names: &[&str]) -> bool {
        names.contains(&&*self.extension)
    }

    /// Converts an error of [`reader`](Self::reader) to this crate's error.
    pub(super) fn error(&self, source: io::Error) -> Error {
        let path = self.path.to_owned();
        let window = source.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(WindowTooLarge { bytes }) = window {
            return Error::Window {
                path,
                expected_bytes: MAX_WINDOW_BYTES,
                got_bytes: *bytes,
            };
        }
        match self.compression {
            // The operating system's own errors carry its code; the others are the decoder's.
            Some(format) if source.raw_os_error().is_none() => Error::Decompress {
                path,
                format,
                reason: source.to_string(),
            },
            _ => Error::Io {
                action: "read",
                path,
                source,
            },
        }
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// A reader into which bytes can be put back.
struct Reader {
    back: Cursor<Vec<u8>>,
    rest: Box<dyn BufRead>,
}

impl Reader {
    /// The bytes that were put back and not read again so far.
    fn left(&self) -> &[u8] {
        let start = usize::try_from(self.back.position()).unwrap_or(usize::MAX);
        self.back.get_ref().get(start..).unwrap_or_default()
    }

    fn current(&mut self) -> &mut dyn BufRead {
        match self.left().is_empty() {
            true => &mut self.rest,
            false => &mut self.back,
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.current().read(buffer)
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left().is_empty() {
            // The buffer may hold a whole line, so it is freed.
            self.back = Cursor::default();
        }
        self.current().fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.current().consume(bytes);
    }
}

fn buffered(reader: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, reader))
}

fn extension(path: &Path) -> String {
    path.extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default()
}
