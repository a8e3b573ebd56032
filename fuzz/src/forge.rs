//! Containers whose lengths and hashes fit.

use tokenformer_store::FileEntry;

/// A ZIP archive of stored entries.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in entries {
        let offset = out.len() as u32;
        let size = (data.len() as u32).to_le_bytes();
        let name_bytes = (name.len() as u16).to_le_bytes();
        out.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        out.extend(size);
        out.extend(size);
        out.extend(name_bytes);
        out.extend([0; 2]);
        out.extend(name.bytes());
        out.extend(*data);
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend(size);
        directory.extend(size);
        directory.extend(name_bytes);
        directory.extend([0; 12]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.bytes());
    }
    let start = out.len() as u32;
    let count = (entries.len() as u16).to_le_bytes();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count);
    out.extend(count);
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

/// A `torch.save` archive of a pickle and two storages of 64 bytes.
pub fn torch(pickle: &[u8]) -> Vec<u8> {
    let storage: Vec<u8> = (0u8..16)
        .flat_map(|number| f32::from(number).to_le_bytes())
        .collect();
    zip(&[
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/data/0", &storage),
        ("a/data/1", &storage),
        ("a/version", b"3\n"),
    ])
}

/// A safetensors file of a header and some bytes of data.
pub fn safetensors(header: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header, data].concat()
}

/// A manifest whose own hash fits.
pub fn manifest(kind: &str, files: &[FileEntry]) -> Vec<u8> {
    let (format, version) = ("tokenformer-manifest", 1);
    let sealed = serde_json::to_vec(&(format, version, kind, files)).expect("plain data");
    let document = serde_json::json!({
        "format": format, "version": version, "kind": kind, "files": files,
        "blake3": blake3::hash(&sealed).to_string(),
    });
    serde_json::to_vec(&document).expect("plain data")
}

/// Makes both hashes of a token file fit the rest.
pub fn reseal(tokens: &mut [u8]) {
    if let Some((header, body)) = tokens.split_at_mut_checked(128) {
        header[64..96].copy_from_slice(blake3::hash(body).as_bytes());
        let seal = blake3::hash(&header[..96]);
        header[96..].copy_from_slice(seal.as_bytes());
    }
}
