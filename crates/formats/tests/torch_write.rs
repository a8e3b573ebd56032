//! Files that PyTorch will read.

mod common;

use tokenformer_formats::{Dtype, Error, TensorSpec, TorchFile, write_torch};
use tokenformer_testing::{Watching, held};

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
    }
}

fn specs() -> Vec<TensorSpec> {
    vec![
        spec("z.weight", Dtype::F32, &[3, 4]),
        spec("a.half", Dtype::F16, &[5]),
        spec("bf", Dtype::BF16, &[2, 1, 2]),
        spec("scalar", Dtype::F32, &[]),
        spec("empty", Dtype::F32, &[0, 7]),
    ]
}

fn values(spec: &TensorSpec) -> Vec<f32> {
    (0..spec.shape.iter().product())
        .map(|i| i as f32 * 0.25 - 1.0)
        .collect()
}

fn write(path: &std::path::Path, part: usize) -> Result<(), Error> {
    let specs = specs();
    write_torch(path, &specs, |index, sink| {
        values(&specs[index])
            .chunks(part)
            .try_for_each(|chunk| sink.write(chunk))
    })
}

#[test]
fn what_is_written_is_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    write(&path, 100).unwrap();
    let tensors = TorchFile::open(&path).unwrap().tensors().unwrap();
    let listed: Vec<_> = tensors
        .list()
        .iter()
        .map(|info| spec(&info.name, info.dtype, &info.shape))
        .collect();
    assert_eq!(listed, specs());
    for spec in specs() {
        assert_eq!(tensors.read_f32(&spec.name).unwrap(), values(&spec));
    }
}

#[test]
fn the_bytes_depend_on_the_tensors_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.bin"), dir.path().join("two.pt"));
    write(&one, 100).unwrap();
    write(&two, 1).unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        2,
        "nothing else is left behind"
    );
}

#[test]
fn data_begin_at_multiples_of_64() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    let specs = [spec("a", Dtype::F32, &[3]), spec("b", Dtype::F32, &[3])];
    write_torch(&path, &specs, |index, sink| {
        sink.write(&[[1.5f32, 2.5, 3.5], [-8.5, -9.5, -10.5]][index])
    })
    .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for first in [1.5f32, -8.5] {
        let at = bytes
            .windows(4)
            .position(|window| window == first.to_le_bytes())
            .unwrap();
        assert_eq!(at % 64, 0);
    }
}

#[test]
fn numbers_round_to_nearest_even() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    let numbers = [1.0f32 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 1e9, f32::NAN];
    let specs = [spec("h", Dtype::F16, &[4]), spec("b", Dtype::BF16, &[4])];
    write_torch(&path, &specs, |_, sink| sink.write(&numbers)).unwrap();
    let tensors = TorchFile::open(&path).unwrap().tensors().unwrap();
    let half = tensors.read_f32("h").unwrap();
    assert_eq!(half[..3], [1.0, 1.0 + 4.0 / 2048.0, f32::INFINITY]);
    assert!(half[3].is_nan());
    let bfloat = tensors.read_f32("b").unwrap();
    assert_eq!(bfloat[..3], [1.0, 1.0, 998244352.0]);
    assert!(bfloat[3].is_nan());
}

#[test]
fn wrong_tensors_leave_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    std::fs::write(&path, "old").unwrap();
    let two = [spec("w", Dtype::F32, &[2])];
    let few = write_torch::<Error>(&path, &two, |_, sink| sink.write(&[1.0]));
    assert!(matches!(
        few,
        Err(Error::WrongSize {
            expected: 2,
            got: 1,
            ..
        })
    ));
    let many = write_torch::<Error>(&path, &two, |_, sink| sink.write(&[1.0; 3]));
    assert!(matches!(
        many,
        Err(Error::WrongSize {
            expected: 2,
            got: 3,
            ..
        })
    ));
    for specs in [
        vec![spec("w", Dtype::F32, &[1]), spec("w", Dtype::F16, &[1])],
        vec![spec("w", Dtype::I64, &[1])],
        vec![spec("w", Dtype::F32, &[usize::MAX, 2])],
        vec![spec("w", Dtype::F32, &[usize::MAX, 0])],
    ] {
        let refused = write_torch::<Error>(&path, &specs, |_, _| panic!("asked for data"));
        assert!(
            matches!(refused, Err(Error::Unwritable { .. })),
            "{specs:?}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let nowhere = write(&dir.path().join("absent").join("model.bin"), 1);
    assert!(matches!(nowhere, Err(Error::Io { .. })));
}

#[test]
fn large_tensors_stream() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    const ELEMENTS: usize = 4 << 20;
    let specs = [spec("w", Dtype::F16, &[ELEMENTS])];
    let (result, most) = held(|| {
        write_torch::<Error>(&path, &specs, |_, sink| {
            let part = vec![0.5; 1 << 16];
            (0..ELEMENTS / part.len()).try_for_each(|_| sink.write(&part))
        })
    });
    result.unwrap();
    assert!(most < 2 << 20, "{most} bytes");
    let tensors = TorchFile::open(&path).unwrap().tensors().unwrap();
    let (sum, most) = held(|| {
        let mut sum = 0.0;
        tensors
            .for_each_chunk("w", 1 << 16, |part| {
                sum += part.iter().sum::<f32>();
                Ok::<(), Error>(())
            })
            .unwrap();
        sum
    });
    assert_eq!(sum, ELEMENTS as f32 * 0.5);
    assert!(most < 1 << 20, "{most} bytes");
}
