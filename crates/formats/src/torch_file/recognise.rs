//! Recognises files of other formats that are mistaken for a `torch.save` archive.

use crate::Error;

/// The first bytes of the format before PyTorch 1.6: a pickled magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// An error that names the format of the bytes if they are not an archive.
pub(super) fn other_format(location: &str, bytes: &[u8]) -> Option<Error> {
    const LOCAL_OR_EMPTY: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];
    if LOCAL_OR_EMPTY.iter().any(|magic| bytes.starts_with(magic)) {
        return None;
    }
    const RESAVE: &str = "load and save it again with PyTorch 1.6 or newer: torch.save(torch.load(path, weights_only=True), path)";
    let safetensors = bytes.get(8) == Some(&b'{')
        && bytes
            .first_chunk()
            .is_some_and(|length| u64::from_le_bytes(*length) < bytes.len() as u64);
    let (what, help) = if bytes.is_empty() {
        ("the file is empty", "copy or download it again")
    } else if bytes.starts_with(LEGACY) {
        (
            "a PyTorch file in the format before version 1.6, which is not read",
            RESAVE,
        )
    } else if bytes.get(257..262) == Some(b"ustar") {
        (
            "a tar archive, as PyTorch 0.1 wrote it or as a download",
            "unpack it if it holds a checkpoint; otherwise save it again with PyTorch 1.6 or newer",
        )
    } else if bytes.starts_with(b"\x80") {
        ("a plain pickle, not a torch.save archive", RESAVE)
    } else if safetensors {
        (
            "a safetensors file, not a torch.save archive",
            "rename it to .safetensors and give that",
        )
    } else if bytes.starts_with(b"version https://git-lfs") {
        (
            "a Git LFS pointer, not the file itself",
            "fetch the file with: git lfs pull",
        )
    } else if bytes.trim_ascii_start().starts_with(b"<") {
        (
            "a web page, not the file itself",
            "download the file itself; on a model page that is the link with the arrow",
        )
    } else {
        (
            "not a torch.save archive",
            "check that this is the file you mean; if it is, copy or download it again",
        )
    };
    Some(Error::Unsupported {
        location: location.into(),
        what: what.into(),
        help,
    })
}
