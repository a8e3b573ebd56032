//! The part of the ZIP format that `torch.save` uses: stored entries, ZIP64 (PKWARE APPNOTE 6.3.9).

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::{Entry, entries};
pub(crate) use write::ZipWriter;

const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;

const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const LOCATOR_64_BYTES: usize = 20;

/// The extra field that holds 64-bit sizes and offsets.
const EXTRA_64: u16 = 0x0001;
