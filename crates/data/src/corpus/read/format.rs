//! Detects the format of a file by its first bytes.

/// A format that is not text and not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Its name.
    pub name: &'static str,
    /// Advice for the user.
    pub help: &'static str,
}

/// A file's outermost format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zstd,
    Foreign(Foreign),
    /// Text, or an unknown format.
    Other,
}

/// The first bytes of formats that users are likely to pass instead of text.
const FOREIGN: [(&[u8], &str, &str); 14] = [
    (b"\xfd7zXZ\0", "xz", "decompress it first: xz -dk FILE"),
    (b"BZh", "bzip2", "decompress it first: bzip2 -dk FILE"),
    (
        b"\x04\x22\x4d\x18",
        "lz4",
        "decompress it first: lz4 -d FILE",
    ),
    (b"LZIP\x01", "lzip", "decompress it first: lzip -dk FILE"),
    (
        b"\x1f\x9d",
        "compress (.Z)",
        "decompress it first: gzip -d FILE",
    ),
    (b"\xff\x06\0\0sNaPpY", "snappy", "decompress it first"),
    (b"PK\x03\x04", "zip", "unpack it first: unzip FILE"),
    (b"7z\xbc\xaf\x27\x1c", "7z", "unpack it first: 7z x FILE"),
    (b"Rar!\x1a\x07", "rar", "unpack it first: unrar x FILE"),
    (b"PAR1", "Parquet", "write its text as JSON Lines first"),
    (b"ARROW1\0\0", "Arrow", "write its text as JSON Lines first"),
    (
        b"SQLite format 3\0",
        "SQLite",
        "write its text as JSON Lines first",
    ),
    (b"%PDF-", "PDF", "extract its text first: pdftotext FILE"),
    (b"\x7fELF", "a program", "leave it out"),
];

const UTF16: &str = "convert it first: iconv -f UTF-16 -t UTF-8 FILE > NEW";
/// The position of the magic bytes in `tar` archives.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// The format of a file that begins with `head`.
pub(super) fn of(head: &[u8]) -> Format {
    if head.starts_with(b"\x1f\x8b") {
        return Format::Gzip;
    }
    if let [a, 0x2a, 0x4d, 0x18, ..] = head
        && a & 0xf0 == 0x50
    {
        // The first bytes of a skippable frame, RFC 8878 section 3.1.2.
        return Format::Zstd;
    }
    if head.starts_with(b"\x28\xb5\x2f\xfd") {
        return Format::Zstd;
    }
    match foreign(head) {
        Some(foreign) => Format::Foreign(foreign),
        None => Format::Other,
    }
}

fn foreign(head: &[u8]) -> Option<Foreign> {
    let found = FOREIGN.iter().find(|(magic, name, _)| {
        // A text may begin with "BZh"; in a bzip2 file a digit and a block follow.
        head.starts_with(magic) && (*name != "bzip2" || is_bzip2(head))
    });
    if let Some(&(_, name, help)) = found {
        return Some(Foreign { name, help });
    }
    if head.get(TAR_MAGIC) == Some(b"ustar") {
        let help = "unpack it first: tar -xf FILE";
        return Some(Foreign { name: "tar", help });
    }
    let utf32 = [&b"\xff\xfe\0\0"[..], b"\0\0\xfe\xff"];
    if utf32.iter().any(|mark| head.starts_with(mark)) {
        let help = "convert it first: iconv -f UTF-32 -t UTF-8 FILE > NEW";
        return Some(Foreign {
            name: "UTF-32",
            help,
        });
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Some(Foreign {
            name: "UTF-16",
            help: UTF16,
        });
    }
    let (name, help) = unmarked_utf16(head)?;
    Some(Foreign { name, help })
}

fn is_bzip2(head: &[u8]) -> bool {
    // The magic bytes of a block, or of the end of an empty file.
    head.get(3).is_some_and(u8::is_ascii_digit)
        && [
            &b"\x31\x41\x59\x26\x53\x59"[..],
            b"\x17\x72\x45\x38\x50\x90",
        ]
        .iter()
        .any(|block| head.get(4..10) == Some(block))
}

/// UTF-16 without a byte order mark: in Latin script nearly every other byte is zero, and no other byte is.
fn unmarked_utf16(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let pairs = head.len() / 2;
    let zeros = |at: usize| {
        let bytes = head.iter().skip(at).step_by(2);
        bytes.filter(|&&byte| byte == 0).count()
    };
    let [even, odd] = [zeros(0), zeros(1)];
    let is_text =
        |zeros: usize, others: usize| pairs >= 4 && others == 0 && zeros * 10 >= pairs * 7;
    if is_text(odd, even) {
        let help = "convert it first: iconv -f UTF-16LE -t UTF-8 FILE > NEW";
        return Some(("UTF-16 without a byte order mark", help));
    }
    if is_text(even, odd) {
        let help = "convert it first: iconv -f UTF-16BE -t UTF-8 FILE > NEW";
        return Some(("UTF-16 without a byte order mark", help));
    }
    None
}
