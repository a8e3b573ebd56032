//! Gzip files as a byte stream: all members of a file, each with its checksum verified.
//!
//! Format: RFC 1952. Zeros after a member are padding, which tapes and block devices add.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// Reads every member of a source, one after the other.
pub(super) struct Decoder<R>(State<R>);

enum State<R> {
    Inside(GzDecoder<R>),
    Between(R),
    /// An error ended the stream.
    Failed,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(source: R) -> Self {
        Self(State::Inside(GzDecoder::new(source)))
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            self.0 = match std::mem::replace(&mut self.0, State::Failed) {
                State::Inside(mut member) => {
                    let read = member.read(buffer)?;
                    if read > 0 {
                        self.0 = State::Inside(member);
                        return Ok(read);
                    }
                    State::Between(member.into_inner())
                }
                State::Between(mut source) => {
                    if !skip_zeros(&mut source)? {
                        self.0 = State::Between(source);
                        return Ok(0);
                    }
                    State::Inside(GzDecoder::new(source))
                }
                State::Failed => return Ok(0),
            }
        }
    }
}

/// Skips padding; returns whether more data follows.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = source.fill_buf()?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let is_more = zeros < bytes.len();
        source.consume(zeros);
        if is_more {
            return Ok(true);
        }
    }
}
