//! Zstandard files as a byte stream: all frames of a file, each with its checksum verified.
//!
//! Format: RFC 8878.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest accepted window, the same as in the `zstd` program without `--long`.
pub(super) const MAX_WINDOW_BYTES: u64 = 128 << 20;

/// A frame that needs more memory than is allowed.
#[derive(Debug, thiserror::Error)]
#[error("a window of {bytes} bytes")]
pub(super) struct WindowTooLarge {
    pub bytes: u64,
}

/// Reads every frame of a source, one after the other.
pub(super) struct Decoder<R> {
    source: R,
    /// The frame being read.
    frame: Option<FrameDecoder>,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            frame: None,
        }
    }

    /// The next data frame; `None` at the end of the file.
    fn next_frame(&mut self) -> io::Result<Option<FrameDecoder>> {
        while !self.source.fill_buf()?.is_empty() {
            // A new decoder takes memory only as content arrives. A reused one would allocate a whole window at once,
            // which a file of a few bytes could request.
            let mut frame = FrameDecoder::new();
            frame.set_max_window_size(MAX_WINDOW_BYTES);
            match frame.reset(&mut self.source) {
                Ok(()) => return Ok(Some(frame)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, .. }) => {
                    return Err(io::Error::other(WindowTooLarge { bytes: requested }));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(None)
    }
}

fn verify_checksum(frame: &FrameDecoder) -> io::Result<()> {
    match frame.get_checksum_from_data() {
        Some(expected) if frame.get_calculated_checksum() != Some(expected) => {
            Err(io::Error::other("the checksum of the content is wrong"))
        }
        _ => Ok(()),
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.frame.is_none() {
                self.frame = self.next_frame()?;
            }
            let Some(frame) = &mut self.frame else {
                return Ok(0);
            };
            while frame.can_collect() == 0 && !frame.is_finished() {
                frame
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            let read = frame.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            verify_checksum(frame)?;
            self.frame = None;
        }
    }
}
