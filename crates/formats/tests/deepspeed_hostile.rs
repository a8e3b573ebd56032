//! No training folder, however made, takes more memory than its files justify.

mod common;

use std::fs;
use std::path::Path;

use common::{archive, tensor, text};
use tokenformer_formats::deepspeed::DeepSpeedFolder;
use tokenformer_testing::held;

#[global_allocator]
static ALLOCATOR: tokenformer_testing::Watching = tokenformer_testing::Watching;

/// A folder whose states are a dict with a module of one tensor `w` and the given `param_shapes`, and one rank's slices.
fn folder(param_shapes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let states = [
        b"\x80\x02}(".to_vec(),
        text("module"),
        b"}(".to_vec(),
        tensor("w", b"K\x00", b"K\x04", b"K\x01"),
        b"u".to_vec(),
        text("param_shapes"),
        param_shapes.to_vec(),
        b"u.".to_vec(),
    ]
    .concat();
    fs::write(
        dir.path().join("mp_rank_00_model_states.pt"),
        archive(&states),
    )
    .unwrap();
    let shard = [
        b"\x80\x02}".to_vec(),
        text("optimizer_state_dict"),
        b"}".to_vec(),
        text("single_partition_of_fp32_groups"),
        b"]ass.".to_vec(),
    ]
    .concat();
    let name = "zero_pp_rank_0_mp_rank_00_optim_states.pt";
    fs::write(dir.path().join(name), archive(&shard)).unwrap();
    dir
}

/// Opens a folder, which must be refused, and checks what was held on the way.
fn refused(dir: &Path) -> String {
    let bytes: u64 = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    let (result, most) = held(|| {
        DeepSpeedFolder::open(dir)
            .and_then(|folder| folder.weights())
            .map(|_| ())
    });
    // Each of the two files has 16 MiB in addition to twice its size.
    let allowed = 2 * bytes as usize + (34 << 20);
    assert!(most < allowed, "{most} bytes for files of {bytes}");
    result.unwrap_err().to_string()
}

#[test]
fn one_long_name_under_many_parameters_is_not_copied_each_time() {
    let entries = [text(&"n".repeat(1 << 20)), b"q\x05(K\x01tq\x06".to_vec()].concat();
    let again = b"h\x05h\x06".repeat(100_000);
    let shapes = [b"](}(".to_vec(), entries, again, b"ue".to_vec()].concat();
    let told = refused(folder(&shapes).path());
    assert!(
        told.contains("param_shapes takes more memory than the file justifies"),
        "{told}"
    );
    assert!(told.len() < 1000, "{} bytes of message", told.len());
}

#[test]
fn one_group_repeated_is_not_copied_each_time() {
    let mut group = b"}(".to_vec();
    for index in 0..2000 {
        group.extend(text(&index.to_string()));
        group.extend(b"(K\x01t");
    }
    group.extend(b"uq\x05");
    let shapes = [
        b"](".to_vec(),
        group,
        b"h\x05".repeat(100_000),
        b"e".to_vec(),
    ]
    .concat();
    let told = refused(folder(&shapes).path());
    assert!(
        told.contains("param_shapes takes more memory than the file justifies"),
        "{told}"
    );
}
