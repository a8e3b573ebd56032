//! DeepSpeed training folders: which weights are read, and which folders are refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::fixture;
use tokenformer_formats::deepspeed::{DeepSpeedFolder, Precision, is_training_folder};
use tokenformer_formats::{Dtype, Error};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of the fixture that a test may damage, and the folder of its checkpoint.
fn training() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture("deepspeed"), dir.path());
    let step = dir.path().join("global_step7");
    (dir, step)
}

const STATES: &str = "mp_rank_00_model_states.pt";

fn shard(rank: usize) -> String {
    format!("zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
}

fn message(path: &Path) -> String {
    let result = DeepSpeedFolder::open(path)
        .and_then(|folder| folder.weights().map(|weights| weights.precision));
    match result {
        Err(error) => error.to_string(),
        Ok(precision) => panic!("opened with {precision:?}"),
    }
}

/// The fixture's 32-bit numbers: `0.5·i + start`, the first group with an offset that half precision loses.
fn masters(range: std::ops::Range<usize>, start: f32) -> Vec<f32> {
    range.map(|i| i as f32 * 0.5 + start).collect()
}

const OFFSET: f32 = 1.0 / 4096.0;

#[test]
fn shards_merge_to_the_32_bit_weights() {
    let root = fixture("deepspeed");
    for path in [root.clone(), root.join("global_step7")] {
        let folder = DeepSpeedFolder::open(&path).unwrap();
        assert_eq!(folder.iteration(), Some(7));
        assert_eq!(folder.folder(), root.join("global_step7"));
        let weights = folder.weights().unwrap();
        assert_eq!(weights.precision, Precision::Full);
        let names: Vec<&str> = weights
            .tensors
            .list()
            .iter()
            .map(|info| &*info.name)
            .collect();
        assert_eq!(
            names,
            [
                "embed.weight",
                "block.key",
                "norm.weight",
                "norm.bias",
                "head.weight",
                "position"
            ]
        );
        let read = |name: &str| weights.tensors.read_f32(name).unwrap();
        // The first rank ends inside embed.weight (24 elements in two slices of 12).
        assert_eq!(read("embed.weight"), masters(0..15, OFFSET));
        assert_eq!(read("block.key"), masters(15..21, OFFSET));
        assert_eq!(read("norm.weight"), masters(0..3, 100.0));
        assert_eq!(read("norm.bias"), masters(3..6, 100.0));
        assert_eq!(read("head.weight"), read("embed.weight"), "shared");
        assert_eq!(read("position"), [3.0, 4.0], "a buffer");
        assert_eq!(weights.tensors.get("embed.weight").unwrap().shape, [5, 3]);
        assert_eq!(
            weights.tensors.get("embed.weight").unwrap().dtype,
            Dtype::F32
        );
        let mut chunks = Vec::new();
        weights
            .tensors
            .for_each_chunk("embed.weight", 4, |chunk| {
                chunks.push(chunk.len());
                Ok::<(), Error>(())
            })
            .unwrap();
        assert_eq!(chunks, [4, 4, 4, 3]);
    }
}

#[test]
fn missing_shards_leave_the_half_precision_weights() {
    let (dir, step) = training();
    fs::remove_file(step.join(shard(1))).unwrap();
    let weights = DeepSpeedFolder::open(dir.path())
        .unwrap()
        .weights()
        .unwrap();
    assert_eq!(
        weights.precision,
        Precision::Half {
            shards: 1,
            ranks: 2
        }
    );
    assert_eq!(
        weights.tensors.get("embed.weight").unwrap().dtype,
        Dtype::F16
    );
    let expected: Vec<f32> = masters(0..15, OFFSET)
        .iter()
        .map(|&v| half::f16::from_f32(v).to_f32())
        .collect();
    assert_eq!(weights.tensors.read_f32("embed.weight").unwrap(), expected);
    assert_ne!(expected, masters(0..15, OFFSET));
}

#[test]
fn training_state_is_readable_without_running_it() {
    let folder = DeepSpeedFolder::open(&fixture("deepspeed")).unwrap();
    let root = folder.states().root();
    let args = root.get("args").unwrap().as_object().unwrap();
    assert_eq!(args.class, "argparse.Namespace");
    assert_eq!(args.state.get("num_layers").unwrap().as_usize(), Some(1));
    let state = root.get("np_rng_state").unwrap();
    assert_eq!(state.element(0).unwrap().as_str(), Some("MT19937"));
    assert_eq!(
        root.get("random_rng_state")
            .unwrap()
            .element(1)
            .unwrap()
            .elements()
            .unwrap()
            .len(),
        625
    );
}

#[test]
fn what_latest_says_is_a_plain_name() {
    let (dir, _) = training();
    let latest = dir.path().join("latest");
    for bad in ["", "..", "../../etc", "a/b", "/etc", "C:\\x", ".hidden"] {
        fs::write(&latest, bad).unwrap();
        assert!(
            message(dir.path()).contains("the file names no folder"),
            "{bad}"
        );
    }
    fs::write(&latest, "x".repeat(300)).unwrap();
    assert!(message(dir.path()).contains("too large"));
    fs::write(&latest, "global_step8\n").unwrap();
    assert!(message(dir.path()).contains("global_step8"));
    fs::write(&latest, "global_step7\n").unwrap();
    assert!(DeepSpeedFolder::open(dir.path()).is_ok());
    fs::remove_file(&latest).unwrap();
    assert!(DeepSpeedFolder::open(dir.path()).is_ok(), "the only one");
    copy(
        &dir.path().join("global_step7"),
        &dir.path().join("global_step9"),
    );
    let told = message(dir.path());
    assert!(told.contains("not a DeepSpeed checkpoint"), "{told}");
    assert!(
        told.contains("there is \"global_step7\", \"global_step9\""),
        "{told}"
    );
    fs::write(&latest, "global_step8").unwrap();
    let told = message(dir.path());
    assert!(
        told.contains("it names \"global_step8\", which is not there"),
        "{told}"
    );
}

#[test]
fn folders_of_other_layouts_are_called_what_they_are() {
    let states_of_a_rank = format!("zero_pp_rank_0_{STATES}");
    for (file, keeps_states, what, help) in [
        (
            states_of_a_rank.as_str(),
            false,
            "split by ZeRO stage 3",
            "python zero_to_fp32.py",
        ),
        (
            "layer_02-model_00-model_states.pt",
            true,
            "a pipeline checkpoint",
            "(sequential.NN.)",
        ),
        (
            "zero/embed.weight/fp32.pt",
            true,
            "a universal checkpoint",
            "ds_to_universal.py",
        ),
    ] {
        for latest in ["latest", "latest_universal"] {
            let (dir, step) = training();
            let path = step.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(step.join(STATES), path).unwrap();
            if !keeps_states {
                fs::remove_file(step.join(STATES)).unwrap();
            }
            fs::rename(dir.path().join("latest"), dir.path().join("marker")).unwrap();
            fs::rename(dir.path().join("marker"), dir.path().join(latest)).unwrap();
            for folder in [dir.path(), &step] {
                assert!(is_training_folder(folder));
                let told = message(folder);
                assert!(told.contains(what) && told.contains(help), "{told}");
                assert!(told.contains("global_step7"), "{told}");
            }
        }
    }
    assert!(!is_training_folder(tempfile::tempdir().unwrap().path()));
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let (dir, step) = training();
    fs::copy(step.join(shard(0)), step.join(shard(2))).unwrap();
    assert!(message(dir.path()).contains("belongs to rank 2"));

    let (dir, step) = training();
    fs::copy(step.join(shard(0)), step.join(format!("bf16_{}", shard(0)))).unwrap();
    assert!(message(dir.path()).contains("two files belong to rank 0"));

    let (dir, step) = training();
    fs::copy(step.join(STATES), step.join("mp_rank_01_model_states.pt")).unwrap();
    assert!(message(dir.path()).contains("model parallelism"));

    let (dir, step) = training();
    fs::copy(step.join(STATES), step.join(shard(1))).unwrap();
    assert!(message(dir.path()).contains("\"optimizer_state_dict\" is missing"));
}

/// A checkpoint of one rank, of pickles written by hand: the module's "w" has `[2, 2]`.
fn by_hand(param_shapes: &str, slice_elements: u8, extra: &str) -> tempfile::TempDir {
    use common::{archive, tensor, text};
    let dir = tempfile::tempdir().unwrap();
    let module = [
        text("module"),
        b"}(".to_vec(),
        tensor("w", b"K\x00", b"K\x02K\x02", b"K\x02K\x01"),
        b"u".to_vec(),
    ]
    .concat();
    let states = [
        b"\x80\x02}(".as_slice(),
        &module,
        extra.as_bytes(),
        &text("param_shapes"),
        param_shapes.as_bytes(),
        b"u.",
    ]
    .concat();
    fs::write(dir.path().join(STATES), archive(&states)).unwrap();
    let flat = tensor("", b"K\x00", &[b'K', slice_elements], b"K\x01").split_off(5);
    let shard_pickle = [
        b"\x80\x02}".to_vec(),
        text("optimizer_state_dict"),
        b"}".to_vec(),
        text("single_partition_of_fp32_groups"),
        b"]".to_vec(),
        flat,
        b"ass.".to_vec(),
    ];
    fs::write(dir.path().join(shard(0)), archive(&shard_pickle.concat())).unwrap();
    dir
}

#[test]
fn shapes_and_slices_must_agree() {
    let good = "]}(VwX\n".replace("VwX\n", "Vw\n(I2\nI2\ntua");
    let dir = by_hand(&good, 4, "");
    let weights = DeepSpeedFolder::open(dir.path())
        .unwrap()
        .weights()
        .unwrap();
    assert_eq!(weights.precision, Precision::Full);
    assert_eq!(weights.tensors.read_f32("w").unwrap(), [0.0, 1.0, 2.0, 3.0]);
    for (shapes, elements, extra, part) in [
        (good.as_str(), 3, "", "end before \"w\""),
        ("]}(Vw\n(I1\nI1\ntua", 4, "", "longer than its parameters"),
        ("]}(Vw\n(I4\ntua", 4, "", "disagree about \"w\""),
        (
            "]}(Vw\n(I9223372036854775807\nI9223372036854775807\ntua",
            4,
            "",
            "end before \"w\"",
        ),
        ("]}(Vw\n(I-1\ntua", 4, "", "param_shapes cannot be read"),
        ("]}(Vw\nI1\nua", 4, "", "param_shapes cannot be read"),
        ("]}(I1\n(I1\ntua", 4, "", "param_shapes cannot be read"),
        ("]I1\na", 4, "", "param_shapes cannot be read"),
        ("]", 4, "", "a list of 0 flat 32-bit tensors"),
        ("]}(Vw\n(I2\nI1\ntVw\n(I2\nI1\ntua", 4, "", "\"w\" twice"),
        (
            "]}(Vw\n(I2\nI1\ntVv\n(I2\nI1\ntua",
            4,
            "",
            "disagree about \"w\"",
        ),
        (
            "]}(Vw\n(I2\nI2\ntVv\n(I0\ntua",
            4,
            "",
            "\"v\", which the module has not",
        ),
        (good.as_str(), 4, "Vmp_world_size\nI2\n", "2 processes"),
        (
            good.as_str(),
            4,
            "Vdp_world_size\nI0\n",
            "dp_world_size cannot be read",
        ),
    ] {
        let dir = by_hand(shapes, elements, extra);
        let text = message(dir.path());
        assert!(text.contains(part), "{part}: {text}");
    }
    let dir = by_hand(&good, 4, "Vdp_world_size\nI1000000000000\n");
    let weights = DeepSpeedFolder::open(dir.path())
        .unwrap()
        .weights()
        .unwrap();
    assert_eq!(
        weights.precision,
        Precision::Half {
            shards: 1,
            ranks: 1_000_000_000_000
        }
    );
}

#[test]
fn a_module_of_another_type_has_its_32_bit_weights_all_the_same() {
    let dir = by_hand("]}(Vw\n(I2\nI2\ntua", 4, "");
    let path = dir.path().join(STATES);
    let mut states = fs::read(&path).unwrap();
    let (float, other) = (b"FloatStorage", b"QInt8Storage");
    let at = states.windows(float.len()).position(|found| found == float);
    states[at.unwrap()..][..other.len()].copy_from_slice(other);
    fs::write(&path, states).unwrap();
    let weights = || {
        DeepSpeedFolder::open(dir.path())
            .unwrap()
            .weights()
            .unwrap()
            .tensors
    };
    assert_eq!(weights().read_f32("w").unwrap(), [0.0, 1.0, 2.0, 3.0]);
    fs::remove_file(dir.path().join(shard(0))).unwrap();
    assert_eq!(
        weights().unread_reason("w"),
        Some("its elements are \"QInt8Storage\"")
    );
}
