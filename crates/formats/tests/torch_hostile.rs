//! No archive, however made, panics the reader or makes it take more memory than the file justifies.

mod common;

use std::io::Write;

use common::{Entry, archive, dict, fixture, long, tensor, text, zip};
use proptest::prelude::*;
use tokenformer_formats::{Error, MAX_REPEATED_ELEMENTS, TorchFile};
use tokenformer_testing::held;

#[global_allocator]
static ALLOCATOR: tokenformer_testing::Watching = tokenformer_testing::Watching;

/// Memory that any file may take, however small.
const FLOOR_BYTES: usize = 17 << 20;

/// Opens the bytes as a file, reads every tensor, and checks what was held on the way.
fn open(bytes: &[u8]) -> Result<Vec<(String, Vec<f32>)>, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let path = file.path();
    let (result, most) = held(|| {
        let tensors = TorchFile::open(path)?.tensors()?;
        let mut all = Vec::new();
        for info in tensors.list() {
            // Kept only when few, so that what is measured is one tensor at a time. Repeated numbers have a bound of
            // their own.
            let values = if info.dtype.is_float() && info.elements() <= bytes.len() {
                tensors.read_f32(&info.name)?
            } else {
                assert!(info.elements() <= bytes.len().max(MAX_REPEATED_ELEMENTS));
                Vec::new()
            };
            if tensors.list().len() < 20 {
                all.push((info.name.clone(), values));
            }
        }
        Ok(all)
    });
    assert!(
        most < FLOOR_BYTES + 2 * bytes.len(),
        "{most} bytes for a file of {}",
        bytes.len()
    );
    result
}

fn message(bytes: &[u8]) -> String {
    match open(bytes) {
        Err(error) => error.to_string(),
        Ok(tensors) => panic!("read as {tensors:?}"),
    }
}

fn plain(shape: &[u8], stride: &[u8]) -> Vec<u8> {
    archive(&dict(&[tensor("w", b"K\x00", shape, stride)]))
}

#[test]
fn the_hand_made_archive_is_read() {
    let tensors = open(&plain(b"K\x02K\x02", b"K\x02K\x01")).unwrap();
    assert_eq!(tensors, [("w".to_string(), vec![0.0, 1.0, 2.0, 3.0])]);
    // An axis of one may have any stride.
    let huge = [long(i64::MAX), b"K\x01".to_vec()].concat();
    assert_eq!(
        open(&plain(b"K\x01K\x04", &huge)).unwrap()[0].1,
        [0.0, 1.0, 2.0, 3.0]
    );
}

#[test]
fn tensors_stay_inside_their_storage() {
    let max = long(i64::MAX);
    let half = long(1 << 32);
    for (offset, shape, stride) in [
        (b"K\x00".to_vec(), b"K\x05".to_vec(), b"K\x01".to_vec()),
        (b"K\x01".to_vec(), b"K\x04".to_vec(), b"K\x01".to_vec()),
        (
            b"K\x00".to_vec(),
            b"K\x02K\x02".to_vec(),
            b"K\x03K\x01".to_vec(),
        ),
        (max.clone(), b"K\x01".to_vec(), b"K\x01".to_vec()),
        (b"K\x00".to_vec(), max.clone(), b"K\x01".to_vec()),
        (b"K\x00".to_vec(), b"K\x02".to_vec(), max.clone()),
        // Products that overflow.
        (
            b"K\x00".to_vec(),
            [half.clone(), half.clone()].concat(),
            b"K\x01K\x01".to_vec(),
        ),
        (
            max.clone(),
            [max.clone(), max.clone()].concat(),
            [max.clone(), max.clone()].concat(),
        ),
        (
            b"K\x00".to_vec(),
            [half.clone(), half.clone()].concat(),
            b"K\x00K\x00".to_vec(),
        ),
    ] {
        let text = message(&archive(&dict(&[tensor("w", &offset, &shape, &stride)])));
        assert!(
            text.contains("tensor \"w\": the tensor is larger than its storage"),
            "{text}"
        );
        assert!(text.contains("at most 4 elements"), "{text}");
    }
    for (offset, shape, stride) in [
        (
            b"J\xff\xff\xff\xff".to_vec(),
            b"K\x01".to_vec(),
            b"K\x01".to_vec(),
        ),
        (
            b"K\x00".to_vec(),
            b"J\xfe\xff\xff\xff".to_vec(),
            b"K\x01".to_vec(),
        ),
        (
            b"K\x00".to_vec(),
            b"K\x02".to_vec(),
            b"J\xff\xff\xff\xff".to_vec(),
        ),
        (b"N".to_vec(), b"K\x01".to_vec(), b"K\x01".to_vec()),
        (b"K\x00".to_vec(), b"K\x01".repeat(65), b"K\x01".repeat(65)),
        (b"K\x00".to_vec(), b"K\x01".to_vec(), b"K\x01K\x01".to_vec()),
    ] {
        let text = message(&archive(&dict(&[tensor("w", &offset, &shape, &stride)])));
        assert!(
            text.contains("no usable") || text.contains("does not fit its shape"),
            "{text}"
        );
    }
}

/// The reason why the tensor "w" is not read, while the one next to it is.
fn unread(w: &[u8]) -> String {
    let good = tensor("good", b"K\x00", b"K\x04", b"K\x01");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&archive(&dict(&[w.to_vec(), good])))
        .unwrap();
    let tensors = TorchFile::open(file.path()).unwrap().tensors().unwrap();
    assert_eq!(tensors.read_f32("good").unwrap(), [0.0, 1.0, 2.0, 3.0]);
    tensors.get("w").err().unwrap().to_string()
}

#[test]
fn repeated_numbers_are_bounded_in_all_tensors_together() {
    let one = |name: &str, count: i64| tensor(name, b"K\x00", &long(count), b"K\x00");
    let told = unread(&one("w", 1 << 40));
    assert!(told.contains("it repeats numbers, 1099511627776"), "{told}");
    let most = MAX_REPEATED_ELEMENTS as i64;
    let small = tensor("small", b"K\x01", b"K\x02K\x03", b"K\x01K\x00");
    let pickle = dict(&[one("a", most), one("b", 5), small.clone()]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&archive(&pickle)).unwrap();
    let tensors = TorchFile::open(file.path()).unwrap().tensors().unwrap();
    assert_eq!(tensors.get("a").unwrap().shape, [MAX_REPEATED_ELEMENTS]);
    assert_eq!(tensors.unread().count(), 2);
    assert_eq!(
        open(&archive(&dict(&[small]))).unwrap()[0].1,
        [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    );
}

#[test]
fn metadata_is_followed_or_told() {
    let plain = tensor("w", b"K\x00", b"K\x04", b"K\x01");
    // The record ends with `requires_grad`, hooks (an empty dict), the tuple's end and the call.
    let with = |hooks: &[u8], more: &[u8], after: &[u8]| {
        let cut = plain.len() - b"\x89}tR".len();
        [&plain[..cut], b"\x89", hooks, more, b"tR", after].concat()
    };
    let entry = |key: &str, value: &[u8]| [b"}".as_slice(), &text(key), value, b"s"].concat();
    let read = |w: Vec<u8>| open(&archive(&dict(&[w]))).unwrap().remove(0).1;
    assert_eq!(
        read(with(b"}", &entry("neg", b"\x88"), b"")),
        [-0.0, -1.0, -2.0, -3.0]
    );
    for same in [
        with(b"}", b"N", b""),
        with(b"N", &entry("neg", b"\x89"), b""),
        with(b"}", &entry("conj", b"\x89"), b""),
    ] {
        assert_eq!(read(same), [0.0, 1.0, 2.0, 3.0]);
    }
    for (hooks, metadata, after, part) in [
        (
            "}",
            entry("conj", b"\x88"),
            "",
            "its metadata has \"conj\": True",
        ),
        ("}", entry("neg", b"K\x01"), "", "\"neg\": the integer 1"),
        (
            "}",
            entry("scale", b"K\x02"),
            "",
            "its metadata has \"scale\"",
        ),
        ("}", b"K\x05".to_vec(), "", "its metadata is the integer 5"),
        ("}I1\nI2\ns", b"N".to_vec(), "", "it has hooks"),
        (
            "}",
            b"N".to_vec(),
            "(I1\ntb",
            "changes it after it was made",
        ),
    ] {
        let told = unread(&with(hooks.as_bytes(), &metadata, after.as_bytes()));
        assert!(
            told.contains("tensor \"w\": the tensor is not read"),
            "{told}"
        );
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn attributes_give_no_other_numbers() {
    let record = tensor("w", b"K\x00", b"K\x04", b"K\x01");
    let call = &record[text("w").len()..];
    let with_state = |state: &[u8]| {
        let around = b"ctorch._utils\n_rebuild_parameter_with_state\n(".as_slice();
        [&text("w"), around, call, b"\x89}", state, b"tR"].concat()
    };
    let dict_of = |key: &str| [b"}".as_slice(), &text(key), b"K\x01s"].concat();
    let read = open(&archive(&dict(&[with_state(&dict_of("note"))]))).unwrap();
    assert_eq!(read[0].1, [0.0, 1.0, 2.0, 3.0]);
    for state in [
        dict_of("data"),
        [b"(".to_vec(), dict_of("data"), b"Nt".to_vec()].concat(),
    ] {
        let told = unread(&with_state(&state));
        assert!(told.contains("its attribute data"), "{told}");
    }
    // A subclass may interpret its numbers differently.
    let (function, args) = call.split_at(call.iter().position(|&b| b == b'(').unwrap());
    let subclass = |class: &str| {
        let args = &args[..args.len() - 1];
        let around = b"ctorch._tensor\n_rebuild_from_type_v2\n(".as_slice();
        [&text("w"), around, function, class.as_bytes(), args, b"}tR"].concat()
    };
    let read = open(&archive(&dict(&[subclass("ctorch\nTensor\n")]))).unwrap();
    assert_eq!(read[0].1, [0.0, 1.0, 2.0, 3.0]);
    let told = unread(&subclass("cmegatron.fp8\nTensor\n"));
    assert!(told.contains("class \"megatron.fp8.Tensor\""), "{told}");
}

#[test]
fn storages_must_exist_and_be_known() {
    let pickle = dict(&[tensor("w", b"K\x00", b"K\x01", b"K\x01")]);
    let without = zip(&[
        Entry::new("a/data.pkl", pickle.clone()),
        Entry::new("a/data/1", vec![0; 16]),
    ]);
    assert!(message(&without).contains("none for the key \"0\""));
    let swap = |from: &[u8], to: &[u8]| {
        let at = pickle
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        archive(&[&pickle[..at], to, &pickle[at + from.len()..]].concat())
    };
    assert!(
        open(&swap(b"FloatStorage", b"QInt8Storage"))
            .unwrap()
            .is_empty()
    );
    assert!(message(&swap(b"storage", b"garbage")).contains("has no storage"));
    assert!(message(&swap(b"K\x04tQ", b"K\x04t0N")).contains("has no storage"));
}

#[test]
fn repeated_names_are_refused() {
    let one = tensor("w", b"K\x00", b"K\x01", b"K\x01");
    assert!(
        message(&archive(&dict(&[one.clone(), one]))).contains("two tensors have the same name")
    );
    // `{"a": {"b": t}}` and `{"a.b": t}`.
    let inner = [
        text("a"),
        b"}(".to_vec(),
        tensor("b", b"K\x00", b"K\x01", b"K\x01"),
        b"u".to_vec(),
    ]
    .concat();
    let outer = tensor("a.b", b"K\x00", b"K\x01", b"K\x01");
    assert!(message(&archive(&dict(&[inner, outer]))).contains("two tensors have the same name"));
    let pickle = dict(&[]);
    let entries = [
        Entry::new("a/data.pkl", pickle.clone()),
        Entry::new("a/data/0", "x"),
        Entry::new("a/data/0", "y"),
    ];
    assert!(message(&zip(&entries)).contains("two entries have the same name"));
    let entries = [
        Entry::new("a/data.pkl", pickle.clone()),
        Entry::new("b/data.pkl", pickle),
    ];
    assert!(message(&zip(&entries)).contains("one entry FOLDER/data.pkl"));
}

#[test]
fn an_attack_inside_an_archive_is_named_and_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("hacked");
    let attack = format!("cos\nsystem\n(S'touch {}'\ntR.", victim.display());
    let text = message(&archive(attack.as_bytes()));
    assert!(
        text.contains(
            "data.pkl: the pickle asks for \"os.system\", which is refused; it has not been run"
        ),
        "{text}"
    );
    assert!(!victim.exists());
}

#[test]
fn compressed_entries_are_not_decompressed() {
    let mut bomb = Entry::new("a/data/0", vec![0; 100]);
    bomb.method = 8;
    let entries = [Entry::new("a/data.pkl", dict(&[])), bomb];
    let text = message(&zip(&entries));
    assert!(
        text.contains("the entry \"a/data/0\" is compressed; nothing was decompressed"),
        "{text}"
    );
    assert!(text.contains("help:"), "{text}");
}

#[test]
fn entries_stay_inside_the_archive_and_apart() {
    let base = [
        Entry::new("a/data.pkl", dict(&[])),
        Entry::new("a/data/0", vec![7; 64]),
        Entry::new("a/data/1", vec![8; 64]),
    ];
    assert!(open(&zip(&base)).is_ok());
    let with = |index: usize, change: &dyn Fn(&mut Entry)| {
        let mut entries = base.clone();
        change(&mut entries[index]);
        message(&zip(&entries))
    };
    // The second storage claims the first one's bytes, or the first reaches into the second.
    let first = 30 + 10 + base[0].data.len() as u32;
    let text = with(2, &|entry| entry.claimed_offset = Some(first));
    assert!(text.contains("disagree about its name"), "{text}");
    let text = with(1, &|entry| entry.claimed_bytes = Some(100));
    assert!(text.contains("two entries overlap"), "{text}");
    for offset in [first + 1, 1 << 20, u32::MAX - 1, i32::MIN as u32] {
        let text = with(1, &|entry| entry.claimed_offset = Some(offset));
        assert!(text.contains("not where the directory says"), "{text}");
    }
    for size in [1 << 20, u32::MAX - 1, i32::MAX as u32] {
        let text = with(1, &|entry| entry.claimed_bytes = Some(size));
        assert!(text.contains("outside the archive"), "{text}");
    }
    // 0xffffffff stands for a 64-bit number that is not there.
    let text = with(1, &|entry| entry.claimed_bytes = Some(u32::MAX));
    assert!(text.contains("cut short"), "{text}");
}

#[test]
fn end_records_are_checked() {
    let good = archive(&dict(&[]));
    let end = good.len() - 22;
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        message(&bytes)
    };
    assert!(with(end + 10, b"\xff\xff").contains("too short for its entries"));
    assert!(with(end + 12, b"\xff\xff\xff\xff").contains("outside the archive"));
    assert!(with(end + 16, b"\xff\xff\xff\xff").contains("outside the archive"));
    assert!(with(end, b"XX").contains("the archive has no end"));
    // A 64-bit locator that points anywhere.
    for offset in [0u64, 5, u64::MAX, u64::MAX - 50, good.len() as u64] {
        let mut bytes = good[..end].to_vec();
        bytes.extend(b"PK\x06\x07\0\0\0\0");
        bytes.extend(offset.to_le_bytes());
        bytes.extend(b"\x01\0\0\0");
        bytes.extend(&good[end..]);
        assert!(message(&bytes).contains("64-bit end record"));
    }
}

#[test]
fn shared_values_do_not_multiply() {
    // Lists of two times the list before: 2^40 paths to one tensor.
    let mut pickle = b"\x80\x02}".to_vec();
    pickle.extend(tensor("w", b"K\x00", b"K\x01", b"K\x01"));
    pickle.extend(b"q\x00");
    for _ in 0..30 {
        pickle.extend(b"](h\x00h\x00eq\x00");
    }
    // Leaves `}`, "w", the tensor and the lists on the stack; the last list is the root.
    pickle.extend(b".");
    assert!(message(&archive(&pickle)).contains("more memory than the file justifies"));
    // A list in itself.
    assert!(message(&archive(b"\x80\x02]q\x00h\x00a.")).contains("nested too deeply"));
    // Long names of nested dicts.
    let mut pickle = b"\x80\x02".to_vec();
    for _ in 0..20 {
        pickle.extend(b"}");
        pickle.extend(text(&"k".repeat(200)));
    }
    pickle.extend(tensor("x", b"K\x00", b"K\x01", b"K\x01").split_off(6));
    pickle.extend(b"s".repeat(20));
    pickle.extend(b".");
    assert!(message(&archive(&pickle)).contains("name is too long"));
}

#[test]
fn what_many_tensors_share_is_not_gone_through_for_each() {
    const SHARED: usize = 5_000;
    const TENSORS: usize = 100;
    let entries = |key: &str, value: &[u8]| {
        let entry = [text(key).as_slice(), value].concat();
        [b"}(".as_slice(), &entry.repeat(SHARED), b"uq\x01"].concat()
    };
    let plain = tensor("", b"K\x00", b"K\x04", b"K\x01").split_off(text("").len());
    let metadata = [&plain[..plain.len() - 2], b"h\x01tR"].concat();
    let around = b"ctorch._utils\n_rebuild_parameter_with_state\n(";
    let attributes = [around.as_slice(), &plain, b"\x89}h\x01tR"].concat();
    let list = [b"](".as_slice(), &b"N".repeat(SHARED), b"eq\x01"].concat();
    for (shared, record, part) in [
        (
            entries("neg", b"\x89"),
            &metadata,
            "its metadata has 5000 entries",
        ),
        (
            entries("note", b"N"),
            &attributes,
            "it has 5000 attributes or more",
        ),
        (list, &attributes, "it has 5000 attributes or more"),
    ] {
        let mut pickle = [b"\x80\x02".as_slice(), &shared, b"0}("].concat();
        for index in 0..TENSORS {
            pickle.extend(text(&index.to_string()));
            pickle.extend(record);
        }
        pickle.extend(b"u.");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&archive(&pickle)).unwrap();
        let tensors = TorchFile::open(file.path()).unwrap().tensors().unwrap();
        assert_eq!(tensors.unread().count(), TENSORS);
        for (_, why) in tensors.unread() {
            assert_eq!(why, part);
        }
    }
}

#[test]
fn one_long_storage_name_is_not_copied_for_each_tensor() {
    let key = "k".repeat(60_000);
    let one = |name: &str| {
        let mut out = text(name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(h\x00K\x00(t(t\x89}tR");
        out
    };
    let mut pickle = b"\x80\x02(".to_vec();
    pickle.extend(text("storage"));
    pickle.extend(b"ctorch\nFloatStorage\n");
    pickle.extend(text(&key));
    pickle.extend(text("cpu"));
    pickle.extend(b"K\x01tQq\x000}(");
    for index in 0..2000 {
        pickle.extend(one(&index.to_string()));
    }
    pickle.extend(b"u.");
    let entries = [
        Entry::new("a/data.pkl", pickle),
        Entry::new(&format!("a/data/{key}"), vec![0; 4]),
    ];
    assert!(message(&zip(&entries)).contains("more memory than the file justifies"));
}

#[test]
fn big_endian_and_programs_are_refused() {
    let big = zip(&[
        Entry::new("a/data.pkl", dict(&[])),
        Entry::new("a/byteorder", "big"),
    ]);
    assert!(message(&big).contains("big-endian"));
    let script = zip(&[
        Entry::new("a/data.pkl", dict(&[])),
        Entry::new("a/constants.pkl", "x"),
    ]);
    assert!(message(&script).contains("TorchScript"));
    assert!(message(&zip(&[])).contains("no entries"));
    assert!(
        message(&zip(&[Entry::new("model/pytorch_model.bin", "x")])).contains("unpack it first")
    );
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["views.pt", "views_protocol_5.pt"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for length in 0..bytes.len() {
            assert!(open(&bytes[..length]).is_err(), "{name} at {length}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn mutations_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
    ) {
        let mut bytes = std::fs::read(fixture("views.pt")).unwrap();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = open(&bytes);
    }

    #[test]
    fn mutated_directories_never_panic(
        changes in prop::collection::vec((0usize..1500, any::<u8>()), 1..6),
    ) {
        let mut bytes = std::fs::read(fixture("views.pt")).unwrap();
        let length = bytes.len();
        for (from_end, byte) in changes {
            bytes[length - 1 - from_end] = byte;
        }
        let _ = open(&bytes);
    }

    #[test]
    fn mutated_pickles_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut pickle = dict(&[
            tensor("a", b"K\x00", b"K\x02K\x02", b"K\x02K\x01"),
            tensor("b", b"K\x01", b"K\x03", b"K\x01"),
        ]);
        for (index, byte) in changes {
            let at = index.index(pickle.len());
            pickle[at] = byte;
        }
        let _ = open(&archive(&pickle));
    }
}
