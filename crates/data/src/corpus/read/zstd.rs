//! Zstandard files as a byte stream: all frames of a file, each with its checksum verified.
//!
//! Format: RFC 8878.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, DEFAULT_MAX_WINDOW_SIZE, FrameDecoder};

/// The window that every decoder should offer, by the RFC; all levels without `--ultra` and `--long` stay within it.
const USUAL_WINDOW_BYTES: u64 = 8 << 20;

/// Reads every frame of `source`, one after the other.
pub(super) struct Decoder<R> {
    source: R,
    frame: FrameDecoder,
    is_inside: bool,
}

impl<R: BufRead> Decoder<R> {
    /// Reads a file of `file_bytes`. A frame's window is memory that is taken before anything is decoded: a larger one
    /// than usual is accepted up to twice the file's size.
    pub(super) fn new(source: R, file_bytes: u64) -> Self {
        let mut frame = FrameDecoder::new();
        let justified = file_bytes.saturating_mul(2).max(USUAL_WINDOW_BYTES);
        frame.set_max_window_size(justified.min(DEFAULT_MAX_WINDOW_SIZE));
        Self {
            source,
            frame,
            is_inside: false,
        }
    }

    /// Moves to the next data frame; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
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
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    fn verify_checksum(&self) -> io::Result<()> {
        match self.frame.get_checksum_from_data() {
            Some(expected) if self.frame.get_calculated_checksum() != Some(expected) => {
                Err(io::Error::other("the checksum of the content is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_inside {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.is_inside = true;
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            let read = self.frame.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.verify_checksum()?;
            self.is_inside = false;
        }
    }
}
