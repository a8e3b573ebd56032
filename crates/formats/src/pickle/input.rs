//! The bytes of a pickle, which are consumed from the front.

/// A problem of a pickle; the machine adds its position.
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) got: String,
}

impl Fault {
    pub(super) fn new(what: &'static str, got: impl Into<String>) -> Fault {
        Fault {
            what,
            got: got.into(),
        }
    }
}

pub(super) struct Input<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Input { bytes, at: 0 }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or_else(|| {
            Fault::new(
                "the pickle is cut short",
                format!("{} bytes where {count} are announced", rest.len()),
            )
        })?;
        self.at += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads a length of one byte, and as many bytes.
    pub(super) fn sized_1(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// Reads a length of four bytes, and as many bytes.
    pub(super) fn sized_4(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Reads a length of eight bytes, and as many bytes.
    pub(super) fn sized_8(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.array().map(u64::from_le_bytes)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Reads the bytes up to the next line end, which is skipped.
    pub(super) fn line(&mut self) -> Result<&'a [u8], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(|| Fault::new("the pickle is cut short", "a line without end"))?;
        let line = self.take(end)?;
        self.at += 1;
        Ok(line)
    }

    pub(super) fn text_line(&mut self) -> Result<&'a str, Fault> {
        text(self.line()?)
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| {
        Fault::new(
            "a string is not UTF-8",
            crate::error::shown(&String::from_utf8_lossy(bytes.get(..100).unwrap_or(bytes))),
        )
    })
}
