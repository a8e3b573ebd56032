//! No file, however made, panics the reader or makes it allocate more than the file justifies.

use std::path::Path;

use proptest::prelude::*;
use tokenformer_store::{Error, SafetensorsFile};
use tokenformer_testing::{Watching, largest};

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn file(header: &[u8], data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Opens the bytes as a file, reads every tensor, and checks what was allocated on the way.
fn open(bytes: &[u8]) -> Result<SafetensorsFile, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let (opened, most) = largest(|| {
        let opened = SafetensorsFile::open(&path);
        if let Ok(file) = &opened {
            for name in file.names() {
                let _ = (
                    file.read_f32(name),
                    file.read_f64(name),
                    file.read_u32(name),
                );
                assert!(file.bytes(name).unwrap().len() <= bytes.len());
            }
            assert!(file.read_f32("no such name").is_err());
        }
        opened
    });
    let allowed = 16 * bytes.len() + 8192;
    assert!(
        most <= allowed,
        "{} bytes at once for a file of {}",
        most,
        bytes.len()
    );
    opened
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let Err(error) = open(bytes) else {
        panic!("accepted")
    };
    let message = error.to_string();
    assert!(message.contains(expected), "{message}");
    assert!(
        message.contains("hostile.safetensors: not a valid safetensors file: "),
        "{message}"
    );
    assert!(message.len() < 1000, "{} bytes of message", message.len());
}

#[test]
fn the_smallest_valid_file_is_accepted() {
    assert!(open(&file(b"{}", 0)).is_ok());
    assert!(open(&file(b"{}   ", 0)).is_ok());
    assert!(
        open(&file(
            br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            8
        ))
        .is_ok()
    );
}

#[test]
fn types_that_are_not_read_matter_to_who_asks_for_them_alone() {
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[3,7]},"n":null,
        "b":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"c":{"dtype":"F4","shape":[2],"data_offsets":[2,3]}}"#;
    let opened = open(&file(header, 7)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(opened.names().collect::<Vec<_>>(), ["a", "b", "c", "n"]);
    assert_eq!(opened.read_f32("a").unwrap().len(), 1);
    assert_eq!(opened.bytes("b").unwrap().len(), 2);
    for (name, kind) in [("b", "F8_E4M3"), ("c", "F4"), ("n", "null")] {
        let told = opened.read_f32(name).unwrap_err().to_string();
        assert!(told.contains(&format!("tensor \"{name}\"")), "{told}");
        assert!(told.contains(&format!("got:      \"{kind}\"")), "{told}");
        assert!(opened.dtype(name).is_err() && opened.read_u32(name).is_err());
    }
    // Their bytes are checked as far as they can be.
    let entry =
        |offsets| format!(r#"{{"a":{{"dtype":"F4","shape":[2],"data_offsets":{offsets}}}}}"#);
    for (offsets, told) in [
        ("[0,9]", "expected: 9 bytes of data"),
        ("[1,8]", "expected: data from offset 0"),
        ("[0,7]", "expected: 7 bytes"),
    ] {
        refused(&file(entry(offsets).as_bytes(), 8), told);
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    refused(b"", "got:      a file of 0 bytes");
    refused(b"1234567", "got:      a file of 7 bytes");
    refused(&file(b"", 0), "an empty header");
    refused(&u64::MAX.to_le_bytes(), "expected: at most 0 bytes");
    for length in [3, 1 << 20, 1 << 40, u64::MAX - 7, u64::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        refused(&bytes, "expected: at most 2 bytes");
    }
}

#[test]
fn offsets_that_lie_are_refused() {
    let one = |entry: &str, data| file(format!(r#"{{"a":{entry}}}"#).as_bytes(), data);
    refused(
        &one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#, 7),
        "expected: 8 bytes of data",
    );
    refused(
        &one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#, 9),
        "the data",
    );
    refused(
        &one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,7]}"#, 7),
        "8 bytes for its shape",
    );
    refused(
        &one(r#"{"dtype":"F32","shape":[2],"data_offsets":[1,9]}"#, 9),
        "data from offset 0",
    );
    refused(
        &one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,-8]}"#, 8),
        "JSON",
    );
    refused(
        &one(r#"{"dtype":"U8","shape":[0],"data_offsets":[8,0]}"#, 8),
        "data from offset 0",
    );
    refused(
        &one(
            r#"{"dtype":"U8","shape":[0],"data_offsets":[18446744073709551615,0]}"#,
            0,
        ),
        "data from offset 0",
    );
    refused(
        &one(
            r#"{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}"#,
            8,
        ),
        "of data",
    );
    refused(
        &one(
            r#"{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}"#,
            0,
        ),
        "overflows",
    );
    refused(
        &one(
            r#"{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}"#,
            0,
        ),
        "overflows",
    );
    refused(
        &one(
            r#"{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,0]}"#,
            0,
        ),
        "JSON",
    );

    let overlapping = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    refused(
        &file(overlapping, 6),
        "the tensor \"b\"\n  expected: data from offset 4",
    );
    let hole = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}"#;
    refused(&file(hole, 9), "data from offset 4");
    let twins = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    refused(&file(twins, 4), "data from offset 4");
}

#[test]
fn headers_that_are_ambiguous_or_malformed_are_refused() {
    let entry = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    refused(
        &file(format!(r#"{{"a":{entry},"a":{entry}}}"#).as_bytes(), 1),
        "appears twice",
    );
    refused(
        &file(br#"{"__metadata__":{"k":"1","k":"2"}}"#, 0),
        "appears twice",
    );
    refused(
        &file(br#"{"__metadata__":{},"__metadata__":{}}"#, 0),
        "appears twice",
    );
    refused(&file(br#"{"__metadata__":{"k":1}}"#, 0), "JSON");
    refused(
        &file(
            br#"{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#,
            1,
        ),
        "duplicate field",
    );
    refused(
        &file(br#"{"a":{"dtype":7,"shape":[1],"data_offsets":[0,1]}}"#, 1),
        "expected a string",
    );
    refused(&file(br#"{"a":null,"a":null}"#, 0), "appears twice");
    refused(
        &file(br#"{"a":{"shape":[1],"data_offsets":[0,1]}}"#, 1),
        "missing field `dtype`",
    );
    refused(&file(b"[]", 0), "\"{\" as its first byte");
    refused(&file(b" {}", 0), "the byte 0x20");
    refused(&file(b"{}x", 0), "JSON");
    refused(&file(b"{\"\xff\":1}", 0), "JSON");
    refused(
        &file(&[b"{\"a\":".as_slice(), &[b'['; 100_000]].concat(), 0),
        "JSON",
    );
    let long = format!(
        r#"{{"{0}":{entry},"{0}":{entry}}}"#,
        "\\u001b[31m".repeat(10_000)
    );
    refused(&file(long.as_bytes(), 1), "appears twice");
}

#[test]
fn a_long_header_costs_memory_in_proportion() {
    let axes = vec!["1"; 100_000].join(",");
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{axes}],"data_offsets":[0,1]}}}}"#);
    let opened = open(&file(header.as_bytes(), 1)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(opened.shape("a").unwrap().len(), 100_000);
    assert!(
        opened
            .expect_shape("a", &[1])
            .unwrap_err()
            .to_string()
            .len()
            < 1000
    );
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for path in [
        dir.path(),
        Path::new("/dev/zero"),
        &dir.path().join("missing"),
    ] {
        assert!(
            matches!(SafetensorsFile::open(path), Err(Error::Io { .. })),
            "{}",
            path.display()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = open(&bytes);
    }

    #[test]
    fn random_headers_never_panic(header in "\\{[ -~]{0,60}\\}", data in 0usize..16) {
        let _ = open(&file(header.as_bytes(), data));
    }

    #[test]
    fn almost_valid_files_never_panic_and_agree_with_the_official_reader(
        shapes in prop::collection::vec(prop::collection::vec(0usize..4, 0..3), 1..4),
        offsets in prop::collection::vec((0usize..20, 0usize..20), 3),
        honest in any::<bool>(),
        data in 0usize..20,
        flip in prop::option::of((any::<prop::sample::Index>(), 0u8..8)),
    ) {
        let mut begin = 0;
        let mut entries = Vec::new();
        for (i, shape) in shapes.iter().enumerate() {
            let end = begin + shape.iter().product::<usize>();
            let (from, to) = if honest { (begin, end) } else { offsets[i] };
            entries.push(format!(r#""t{i}":{{"dtype":"U8","shape":{shape:?},"data_offsets":[{from},{to}]}}"#));
            begin = end;
        }
        let mut bytes = file(format!("{{{}}}", entries.join(",")).as_bytes(), if honest { begin } else { data });
        if let Some((position, bit)) = flip {
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
        }
        let ours = open(&bytes);
        if honest && flip.is_none() {
            prop_assert!(ours.is_ok());
        }
        // The official reader refuses a file for the sake of one type that it does not know.
        if ours.is_ok_and(|file| file.names().all(|name| file.dtype(name).is_ok())) {
            prop_assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
        }
    }
}
