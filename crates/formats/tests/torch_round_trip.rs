//! PyTorch itself reads the files that we write.
//!
//! `TOKENFORMER_PYTHON=python3 cargo test -p tokenformer-formats --test torch_round_trip -- --ignored`

use std::process::Command;

use tokenformer_formats::{Dtype, Error, TensorSpec, TorchFile, write_torch};

#[test]
#[ignore = "needs a Python with PyTorch 2, named by TOKENFORMER_PYTHON"]
fn pytorch_reads_what_is_written() {
    let python = std::env::var_os("TOKENFORMER_PYTHON")
        .expect("TOKENFORMER_PYTHON names a Python with PyTorch");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("written.bin");
    let specs: Vec<TensorSpec> = [
        ("z.weight", Dtype::F32, vec![3, 4]),
        ("a.half", Dtype::F16, vec![70_000]),
        ("bf", Dtype::BF16, vec![2, 1, 2]),
        ("scalar", Dtype::F32, vec![]),
        ("empty", Dtype::F32, vec![0, 7]),
    ]
    .into_iter()
    .map(|(name, dtype, shape)| TensorSpec {
        name: name.into(),
        dtype,
        shape,
    })
    .collect();
    write_torch::<Error>(&path, &specs, |index, sink| {
        let count = specs[index].shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i % 256) as f32 * 0.25 - 1.0).collect();
        values.chunks(1000).try_for_each(|part| sink.write(part))
    })
    .unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torch_round_trip.py");
    let again = dir.path().join("again.bin");
    let status = Command::new(python)
        .arg(script)
        .arg(&path)
        .arg(&again)
        .status()
        .unwrap();
    assert!(status.success());
    // What PyTorch saved from it is the same again.
    let (written, again) = (
        TorchFile::open(&path).unwrap(),
        TorchFile::open(&again).unwrap(),
    );
    let (written, again) = (written.tensors().unwrap(), again.tensors().unwrap());
    for spec in &specs {
        assert_eq!(
            written.get(&spec.name).unwrap().dtype,
            again.get(&spec.name).unwrap().dtype
        );
        assert_eq!(
            written.read_f32(&spec.name).unwrap(),
            again.read_f32(&spec.name).unwrap()
        );
    }
}
