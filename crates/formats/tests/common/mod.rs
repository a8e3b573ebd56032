//! Small files built by hand.

#![allow(dead_code, reason = "each test program uses a part of this module")]

use std::path::{Path, PathBuf};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub fn workspace_fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

/// A stored ZIP entry, with everything that a test may want to falsify.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub data: Vec<u8>,
    pub method: u16,
    pub claimed_bytes: Option<u32>,
    pub claimed_offset: Option<u32>,
}

impl Entry {
    pub fn new(name: &str, data: impl Into<Vec<u8>>) -> Entry {
        Entry {
            name: name.into(),
            data: data.into(),
            method: 0,
            claimed_bytes: None,
            claimed_offset: None,
        }
    }
}

pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = entry.claimed_offset.unwrap_or(out.len() as u32);
        let size = entry.claimed_bytes.unwrap_or(entry.data.len() as u32);
        let name = entry.name.len() as u16;
        out.extend(b"PK\x03\x04\x14\0\0\0");
        out.extend(entry.method.to_le_bytes());
        out.extend([0; 8]);
        out.extend(size.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend(name.to_le_bytes());
        out.extend([0; 2]);
        out.extend(entry.name.bytes());
        out.extend(&entry.data);
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0");
        directory.extend(entry.method.to_le_bytes());
        directory.extend([0; 8]);
        directory.extend(size.to_le_bytes());
        directory.extend(size.to_le_bytes());
        directory.extend(name.to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(offset.to_le_bytes());
        directory.extend(entry.name.bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

/// The pickled record of one tensor: `name`, storage "0" of 4-byte floats.
pub fn tensor(name: &str, offset: &[u8], shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let mut out = text(name);
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    out.extend(text("storage"));
    out.extend(b"ctorch\nFloatStorage\n");
    out.extend(text("0"));
    out.extend(text("cpu"));
    out.extend(b"K\x04tQ");
    out.extend(offset);
    for sizes in [shape, stride] {
        out.push(b'(');
        out.extend(sizes);
        out.push(b't');
    }
    out.extend(b"\x89}tR");
    out
}

pub fn text(text: &str) -> Vec<u8> {
    let mut out = vec![b'X'];
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
    out
}

/// A pickled integer of 8 bytes.
pub fn long(number: i64) -> Vec<u8> {
    let mut out = vec![0x8a, 8];
    out.extend(number.to_le_bytes());
    out
}

/// A pickled dict of tensors.
pub fn dict(tensors: &[Vec<u8>]) -> Vec<u8> {
    [b"\x80\x02}(".as_slice(), &tensors.concat(), b"u."].concat()
}

/// An archive of a pickle and one storage of 16 bytes: 0.0, 1.0, 2.0, 3.0.
pub fn archive(pickle: &[u8]) -> Vec<u8> {
    let storage: Vec<u8> = [0.0f32, 1.0, 2.0, 3.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    zip(&[
        Entry::new("a/data.pkl", pickle),
        Entry::new("a/byteorder", "little"),
        Entry::new("a/data/0", storage),
        Entry::new("a/version", "3\n"),
    ])
}
