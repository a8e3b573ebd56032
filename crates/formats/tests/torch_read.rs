//! Files that PyTorch wrote.

mod common;

use std::path::{Path, PathBuf};

use common::fixture;
use safetensors::SafeTensors;
use tokenformer_formats::{Dtype, Error, TorchFile};

/// The fixtures' numbers: `0.5·i + start`.
fn numbers(count: usize, start: f32) -> Vec<f32> {
    (0..count).map(|i| i as f32 * 0.5 + start).collect()
}

#[test]
fn views_types_and_nesting_are_read() {
    for name in ["views.pt", "views_protocol_5.pt"] {
        let file = TorchFile::open(&fixture(name)).unwrap();
        let tensors = file.tensors().unwrap();
        let names: Vec<&str> = tensors.list().iter().map(|info| &*info.name).collect();
        assert_eq!(
            names,
            [
                "matrix",
                "transposed",
                "column",
                "steps",
                "cube",
                "scalar",
                "empty",
                "half",
                "bfloat",
                "double",
                "long",
                "flags",
                "parameter",
                "nested.list.0",
                "nested.list.1.deep",
                "nested.5"
            ]
        );
        let read = |name: &str| tensors.read_f32(name).unwrap();
        let matrix = numbers(12, 2.0);
        assert_eq!(read("matrix"), matrix);
        let transposed: Vec<f32> = (0..4)
            .flat_map(|j| (0..3).map(move |i| i * 4 + j))
            .map(|at| matrix[at])
            .collect();
        assert_eq!(read("transposed"), transposed);
        assert_eq!(read("column"), [matrix[2], matrix[6], matrix[10]]);
        assert_eq!(read("steps"), [0.5, 2.0, 3.5, 5.0, 6.5, 8.0, 9.5]);
        // permute(2, 0, 1) of [2, 3, 4]: element [k, i, j] is [i, j, k] of the original.
        let cube: Vec<f32> = (0..4)
            .flat_map(|k| (0..6).map(move |ij| (16 + ij * 4 + k) as f32 * 0.5))
            .collect();
        assert_eq!(read("cube"), cube);
        assert_eq!(read("scalar"), [2.5]);
        assert!(read("empty").is_empty());
        for name in ["half", "bfloat", "double"] {
            assert_eq!(read(name), numbers(5, 0.0), "{name}");
        }
        assert_eq!(read("parameter"), numbers(4, 0.0));
        assert_eq!(read("nested.list.1.deep"), numbers(3, 7.0));
        assert_eq!(read("nested.5"), [9.0]);
        let info = tensors.get("transposed").unwrap();
        assert_eq!(
            (info.dtype, &*info.shape, &*info.stride, info.offset),
            (Dtype::F32, &[4, 3][..], &[1, 4][..], 4)
        );
        assert_eq!(info.storage, tensors.get("matrix").unwrap().storage);
        assert_eq!(tensors.get("bfloat").unwrap().dtype, Dtype::BF16);
        assert_eq!(tensors.get("flags").unwrap().dtype, Dtype::Bool);
        assert!(matches!(
            tensors.read_f32("long"),
            Err(Error::WrongDtype {
                got: Dtype::I64,
                ..
            })
        ));
        assert_eq!(file.root().get("step").unwrap().as_i64(), Some(12));
        assert_eq!(file.root().get("rate").unwrap().as_f64(), Some(0.25));
        assert_eq!(
            file.root().at(&["note"]).unwrap().as_str(),
            Some("a string")
        );
    }
}

#[test]
fn what_pytorch_reads_as_plain_tensors_is_read() {
    let file = TorchFile::open(&fixture("made.pt")).unwrap();
    let tensors = file.tensors().unwrap();
    let read = |name: &str| tensors.read_f32(name).unwrap();
    assert_eq!(read("parameter"), numbers(6, 0.0));
    assert_eq!(read("attributed"), numbers(4, 1.0));
    assert_eq!(read("negated"), [-1.0, -1.5, -2.0, -2.5]);
    assert_eq!(read("negated_view"), [0.0, -1.5, -0.5, -2.0, -1.0, -2.5]);
    let expanded: Vec<f32> = [1.0, 1.5, 2.0].iter().flat_map(|&x| [x; 4]).collect();
    assert_eq!(read("expanded"), expanded);
    assert_eq!(read("constant"), [5.0; 4]);
    let windows: Vec<f32> = (0..4).flat_map(|i| numbers(3, i as f32 * 0.5)).collect();
    assert_eq!(read("windows"), windows);
    assert!(tensors.get("negated").unwrap().negated);
    let mut chunks = Vec::new();
    tensors
        .for_each_chunk("negated_view", 4, |chunk| {
            chunks.extend_from_slice(chunk);
            Ok::<(), Error>(())
        })
        .unwrap();
    assert_eq!(chunks, read("negated_view"));
    let counter = file.root().get("counter").unwrap();
    assert_eq!(counter.get("a").unwrap().as_i64(), Some(1));
}

#[test]
fn what_is_not_read_matters_to_who_asks_for_it_alone() {
    let file = TorchFile::open(&fixture("unread.pt")).unwrap();
    let tensors = file.tensors().unwrap();
    assert_eq!(tensors.read_f32("good").unwrap(), numbers(3, 0.0));
    let names: Vec<&str> = tensors.list().iter().map(|info| &*info.name).collect();
    assert_eq!(names, ["good"]);
    let unread: Vec<(&str, &str)> = tensors.unread().collect();
    for (name, part) in [
        ("bytes", "5 bytes"),
        ("complex", "complex64"),
        ("conjugate", "its metadata has \"conj\": True"),
        ("endless", "1099511627776 in all"),
        ("float4", "float4_e2m1fn_x2"),
        ("float8", "float8_e4m3fn"),
        ("layer._extra_state", "an object of \"_io.BytesIO\""),
        ("none", "None"),
        ("nowhere", "_rebuild_meta_tensor_no_storage"),
        ("sparse", "_rebuild_sparse_tensor"),
        ("uint16", "uint16"),
        ("uint64", "uint64"),
    ] {
        let why = unread.iter().find(|(found, _)| *found == name).unwrap().1;
        assert!(why.contains(part), "{name}: {why}");
        let told = tensors.read_f32(name).err().unwrap().to_string();
        assert!(told.contains(&format!("tensor \"{name}\": ")), "{told}");
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(unread.len(), 12, "{unread:?}");
}

#[test]
fn chunks_are_the_tensor_in_pieces() {
    let tensors = TorchFile::open(&fixture("views.pt"))
        .unwrap()
        .tensors()
        .unwrap();
    for name in ["matrix", "transposed", "cube", "scalar", "empty", "half"] {
        let whole = tensors.read_f32(name).unwrap();
        for chunk in [1, 2, 5, 7, 1000] {
            let mut joined = Vec::new();
            let mut sizes = Vec::new();
            tensors
                .for_each_chunk(name, chunk, |part| {
                    joined.extend_from_slice(part);
                    sizes.push(part.len());
                    Ok::<(), Error>(())
                })
                .unwrap();
            assert_eq!(joined, whole, "{name} by {chunk}");
            if let Some((last, full)) = sizes.split_last() {
                assert!(full.iter().all(|&size| size == chunk) && *last <= chunk && *last > 0);
            }
        }
    }
    let zero = tensors.for_each_chunk("matrix", 0, |_| Ok::<(), Error>(()));
    assert!(matches!(zero, Err(Error::Argument { .. })));
    let stop = tensors.for_each_chunk("matrix", 5, |_| Err(std::io::Error::other("stop").into()));
    assert_eq!(stop.map_err(|error: Stop| error.0), Err("stop".to_string()));
}

#[derive(Debug)]
struct Stop(String);

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop(error.to_string())
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        Stop(error.to_string())
    }
}

#[test]
fn a_wrong_buffer_or_name_is_told() {
    let tensors = TorchFile::open(&fixture("views.pt"))
        .unwrap()
        .tensors()
        .unwrap();
    let wrong = tensors.read_into("matrix", &mut [0.0; 11]);
    assert!(matches!(
        wrong,
        Err(Error::WrongSize {
            expected: 12,
            got: 11,
            ..
        })
    ));
    let missing = tensors.read_f32("matrx").unwrap_err().to_string();
    assert!(
        missing.contains("the tensor \"matrx\" is missing")
            && missing.contains("such as \"matrix\""),
        "{missing}"
    );
    let file = TorchFile::open(&fixture("views.pt")).unwrap();
    assert_eq!(
        file.tensors_at(&["nested", "list"]).unwrap().list()[1].name,
        "1.deep"
    );
    let missing = file.tensors_at(&["module"]).err().unwrap().to_string();
    assert!(
        missing.contains("the key \"module\" is missing"),
        "{missing}"
    );
}

/// The record of an entry in the archive's directory, and the first byte of its data.
fn entry(bytes: &[u8], name: &str) -> (usize, usize) {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let is_it = |at: &usize| {
        bytes[*at..].starts_with(b"PK\x01\x02")
            && bytes[at + 46..at + 46 + u16_at(at + 28)].ends_with(name.as_bytes())
    };
    let record = (0..bytes.len() - 46).find(is_it).unwrap();
    let local = u32::from_le_bytes(bytes[record + 42..record + 46].try_into().unwrap()) as usize;
    (record, local + 30 + u16_at(local + 26) + u16_at(local + 28))
}

#[test]
fn a_storage_that_changed_since_it_was_saved_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("views.pt");
    let whole = std::fs::read(fixture("views.pt")).unwrap();
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        TorchFile::open(&path)
    };
    let storage = |name: &str| {
        let tensors = open(&whole).unwrap().tensors().unwrap();
        tensors.get(name).unwrap().storage.clone()
    };
    let damaged = format!("data/{}", storage("matrix"));
    assert_ne!(storage("matrix"), storage("half"));
    let (record, data) = entry(&whole, &damaged);
    let mut bytes = whole.clone();
    bytes[data + 5] ^= 1;
    let tensors = open(&bytes).unwrap().tensors().unwrap();
    for _ in 0..2 {
        // The transposed matrix is a view of the same storage.
        for name in ["matrix", "transposed"] {
            let told = tensors.read_f32(name).unwrap_err().to_string();
            let what = format!("views.pt: the entry {damaged:?} is not as it was saved");
            assert!(told.contains(&what) && told.contains("help: "), "{told}");
            let mut chunks = 0;
            let read = tensors.for_each_chunk(name, 2, |_| {
                chunks += 1;
                Ok::<(), Error>(())
            });
            assert!(read.is_err() && chunks == 0);
        }
        tensors.read_f32("half").unwrap();
    }
    // PyTorch leaves the checksum at 0 if it is told to compute none.
    bytes[record + 16..record + 20].fill(0);
    let tensors = open(&bytes).unwrap().tensors().unwrap();
    tensors.read_f32("matrix").unwrap();

    let mut bytes = whole.clone();
    let (_, pickle) = entry(&whole, "data.pkl");
    bytes[pickle + 40] ^= 1;
    let told = open(&bytes).err().unwrap().to_string();
    assert!(
        told.contains("the entry \"data.pkl\" is not as it was saved"),
        "{told}"
    );
}

#[test]
fn released_memory_is_read_again() {
    let tensors = TorchFile::open(&fixture("views.pt"))
        .unwrap()
        .tensors()
        .unwrap();
    let before = tensors.read_f32("matrix").unwrap();
    tensors.release();
    assert_eq!(tensors.read_f32("matrix").unwrap(), before);
}

#[test]
fn other_formats_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let message = |bytes: &[u8]| {
        let path = dir.path().join("file.bin");
        std::fs::write(&path, bytes).unwrap();
        TorchFile::open(&path).err().unwrap().to_string()
    };
    let legacy = TorchFile::open(&fixture("legacy.pt"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        legacy.contains("before version 1.6") && legacy.contains("torch.save("),
        "{legacy}"
    );
    assert!(message(b"").contains("the file is empty"));
    assert!(message(b"\x80\x02N.").contains("a plain pickle"));
    assert!(message(b"\x02\0\0\0\0\0\0\0{} ").contains("a safetensors file"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(message(b"\n<!DOCTYPE html>").contains("a web page"));
    assert!(message(b"hello").contains("not a torch.save archive"));
    assert!(TorchFile::open(dir.path()).is_err());
    assert!(
        TorchFile::open(&dir.path().join("absent"))
            .err()
            .unwrap()
            .to_string()
            .contains("check that the path exists")
    );
}

/// Compares with the same weights in another format, made by an independent program.
///
/// The files are not part of the repository: `TOKENFORMER_GOLDEN` names their folder.
#[test]
#[ignore = "needs the folder TOKENFORMER_GOLDEN"]
fn golden_files_hold_the_same_numbers() {
    let folder = PathBuf::from(
        std::env::var_os("TOKENFORMER_GOLDEN").expect("TOKENFORMER_GOLDEN names the folder"),
    );
    for model in ["lm0", "lm1", "lm2"] {
        let bytes = std::fs::read(folder.join(model).join("model.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        compare(
            &folder.join(model).join("pytorch_model.bin"),
            &expected,
            |value| value,
        );
        compare(
            &folder.join(model).join("pytorch_model_fp16.bin"),
            &expected,
            |value| half::f16::from_f32(value).to_f32(),
        );
    }
}

fn compare(path: &Path, expected: &SafeTensors<'_>, rounded: impl Fn(f32) -> f32) {
    let tensors = TorchFile::open(path).unwrap().tensors().unwrap();
    assert_eq!(tensors.list().len(), expected.len());
    for (name, view) in expected.iter() {
        assert_eq!(tensors.get(name).unwrap().shape, view.shape());
        let values = view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| rounded(f32::from_le_bytes(b)));
        assert!(
            tensors.read_f32(name).unwrap().into_iter().eq(values),
            "{name}"
        );
    }
}
