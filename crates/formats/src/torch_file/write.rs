//! Archives that `torch.load(path, weights_only=True)` reads.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::{contiguous, elements};
use crate::zip::ZipWriter;
use crate::{Dtype, Error, Result, file};

/// One tensor to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name, unique in the file.
    pub name: String,
    /// The type of its elements in the file: `F32`, `F16` or `BF16`.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
}

/// Receives the elements of one tensor, in row-major order and in any number of parts.
pub struct TensorSink<'a> {
    zip: &'a mut ZipWriter<BufWriter<std::fs::File>>,
    path: &'a Path,
    spec: &'a TensorSpec,
    written: usize,
    expected: usize,
    bytes: Vec<u8>,
}

impl TensorSink<'_> {
    /// Adds elements; they are rounded to the tensor's type.
    ///
    /// # Errors
    /// [`Error::WrongSize`] beyond the shape's elements, [`Error::Io`].
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        const BLOCK: usize = 1 << 16;
        self.written = self.written.saturating_add(values.len());
        if self.written > self.expected {
            return Err(self.wrong_size());
        }
        for block in values.chunks(BLOCK) {
            self.bytes.clear();
            self.spec.dtype.append_bytes(block, &mut self.bytes);
            self.zip
                .write(&self.bytes)
                .map_err(Error::io("write it", self.path))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if self.written != self.expected {
            return Err(self.wrong_size());
        }
        Ok(())
    }

    fn wrong_size(&self) -> Error {
        Error::WrongSize {
            path: self.path.into(),
            name: self.spec.name.clone(),
            expected: self.expected as u64,
            got: self.written as u64,
        }
    }
}

/// Writes a state dict next to `path`, syncs it and renames it over `path`.
///
/// `data` is called once for each tensor, in order, with its index and the sink for its elements. The same tensors give
/// the same bytes. There is one storage per tensor; data begins at multiples of 64 bytes, as in PyTorch.
///
/// # Errors
/// [`Error::Unwritable`] (a repeated or too long name, another type, a shape that overflows), [`Error::WrongSize`],
/// [`Error::Io`], and those of `data`. The old file under `path` is then unchanged.
pub fn write_torch<E: From<Error>>(
    path: &Path,
    tensors: &[TensorSpec],
    mut data: impl FnMut(usize, &mut TensorSink<'_>) -> Result<(), E>,
) -> Result<(), E> {
    check(path, tensors)?;
    let staged = file::stage(path)?;
    let handle = staged
        .as_file()
        .try_clone()
        .map_err(Error::io("write it", path))?;
    let io = |error| Error::io("write it", path)(error);
    let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 18, handle));
    // PyTorch names the folder after the file; a constant name keeps the bytes independent of the file's name.
    const ROOT: &str = "archive";
    for (name, content) in [
        ("data.pkl", pickle(tensors)),
        ("byteorder", b"little".to_vec()),
    ] {
        zip.start(&format!("{ROOT}/{name}")).map_err(io)?;
        zip.write(&content).map_err(io)?;
        zip.end().map_err(io)?;
    }
    for (index, spec) in tensors.iter().enumerate() {
        zip.start(&format!("{ROOT}/data/{index}")).map_err(io)?;
        let mut sink = TensorSink {
            zip: &mut zip,
            path,
            spec,
            written: 0,
            // `check` returned an error for an overflow.
            expected: elements(&spec.shape).unwrap_or(0),
            bytes: Vec::new(),
        };
        data(index, &mut sink)?;
        sink.finish()?;
        zip.end().map_err(io)?;
    }
    zip.start(&format!("{ROOT}/version")).map_err(io)?;
    zip.write(b"3\n").map_err(io)?;
    zip.end().map_err(io)?;
    zip.finish().map_err(io)?.flush().map_err(io)?;
    Ok(file::publish(staged, path)?)
}

fn check(path: &Path, tensors: &[TensorSpec]) -> Result<()> {
    let refused = |what, expected: &str, got: String| Error::Unwritable {
        path: path.into(),
        what,
        expected: expected.into(),
        got,
    };
    let mut names = HashSet::new();
    for spec in tensors {
        let name = crate::error::shown(&spec.name);
        if !names.insert(&spec.name) {
            return Err(refused(
                "two tensors have the same name",
                "each name once",
                name,
            ));
        }
        if !matches!(spec.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(refused(
                "a tensor has a type that is not written",
                "F32, F16 or BF16",
                format!("{} for {name}", spec.dtype),
            ));
        }
        let bytes =
            elements(&spec.shape).and_then(|count| count.checked_mul(spec.dtype.size_bytes()));
        // PyTorch counts in signed 64 bits, which also limits the other axes of an empty tensor.
        let axes = spec.shape.iter().copied();
        if axes
            .chain([bytes.unwrap_or(usize::MAX)])
            .any(|size| i64::try_from(size).is_err())
            || u32::try_from(spec.name.len()).is_err()
        {
            return Err(refused(
                "a tensor is too large",
                "fewer than 2^63 bytes",
                format!("{:?} for {name}", spec.shape),
            ));
        }
    }
    Ok(())
}

/// The pickle (protocol 2) of an `OrderedDict` from names to tensors.
fn pickle(tensors: &[TensorSpec]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (index, spec) in tensors.iter().enumerate() {
        text(&mut out, &spec.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}Storage\n", spec.dtype.storage()).bytes());
        text(&mut out, &index.to_string());
        text(&mut out, "cpu");
        integer(&mut out, elements(&spec.shape).unwrap_or(0));
        // First the storage's record, then the offset.
        out.extend(b"tQK\x00");
        tuple(&mut out, &spec.shape);
        tuple(&mut out, &contiguous(&spec.shape));
        // These are requires_grad, the backward hooks, and the call.
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    // `check` returned an error for longer names.
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn tuple(out: &mut Vec<u8>, sizes: &[usize]) {
    out.push(b'(');
    for &size in sizes {
        integer(out, size);
    }
    out.push(b't');
}

fn integer(out: &mut Vec<u8>, number: usize) {
    if let Ok(small) = i32::try_from(number) {
        out.push(b'J');
        out.extend(small.to_le_bytes());
    } else {
        out.extend([0x8a, 8]);
        out.extend((number as u64).to_le_bytes());
    }
}
