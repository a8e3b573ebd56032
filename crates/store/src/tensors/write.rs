//! The streaming writer, which needs one buffer for a file of any size.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde::ser::SerializeMap;

use super::{Dtype, METADATA, elements};
use crate::atomic_file::StagedFile;
use crate::hash::{BUFFER_BYTES, HashingWriter, Written};
use crate::space::ensure_space;
use crate::{Error, Result};

/// One tensor to write.
pub struct TensorSource<'a> {
    /// Its name, unique in the file.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub data: TensorData<'a>,
}

/// Where a tensor's elements come from.
pub enum TensorData<'a> {
    /// Numbers in memory, for [`Dtype::F32`].
    F32(&'a [f32]),
    /// A function that writes the tensor's little-endian bytes, called once, when its turn comes.
    Stream(&'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>),
}

impl<'a> TensorSource<'a> {
    /// A tensor of `f32` numbers in memory.
    pub fn f32(name: impl Into<String>, shape: &[usize], values: &'a [f32]) -> TensorSource<'a> {
        TensorSource {
            name: name.into(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data: TensorData::F32(values),
        }
    }

    /// A tensor whose little-endian bytes `write` produces when its turn comes.
    pub fn stream(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        write: &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> TensorSource<'a> {
        TensorSource {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            data: TensorData::Stream(write),
        }
    }
}

/// Writes a `.safetensors` file next to `path`, syncs it and renames it over `path`.
///
/// Tensors are laid out by element type and then by name, in any order of the input, as the official writer does. An
/// existing file, which may be mapped, is replaced and never written to.
///
/// # Errors
/// [`Error::Unwritable`] (a repeated name, a shape that overflows), [`Error::WrongSize`] (data and shape disagree),
/// [`Error::NoSpace`], [`Error::Busy`], [`Error::Io`]. The file under `path` is then what it was before.
pub fn write_safetensors<'a>(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: impl IntoIterator<Item = TensorSource<'a>>,
) -> Result<Written> {
    let tensors: Vec<TensorSource<'a>> = tensors.into_iter().collect();
    ensure_space(path, encoded_bytes(path, metadata, &tensors)?)?;
    let mut staged = StagedFile::begin(path)?;
    let written = write_to(staged.file(), path, metadata, tensors)?;
    staged.commit()?;
    Ok(written)
}

/// Bytes that [`write_to`] will write.
pub(crate) fn encoded_bytes(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorSource<'_>],
) -> Result<u64> {
    let plan = Plan::new(path, metadata, tensors)?;
    Ok((plan.header.len() as u64).saturating_add(plan.data_bytes as u64))
}

/// Writes the format to any writer; `path` is for messages.
pub(crate) fn write_to<'a>(
    sink: impl Write,
    path: &Path,
    metadata: &BTreeMap<String, String>,
    mut tensors: Vec<TensorSource<'a>>,
) -> Result<Written> {
    let plan = Plan::new(path, metadata, &tensors)?;
    tensors.sort_by(layout);
    let failed = |error| Error::io("write it", path)(error);

    let mut out = BufWriter::with_capacity(BUFFER_BYTES, HashingWriter::new(sink));
    out.write_all(&plan.header).map_err(failed)?;
    for TensorSource {
        name,
        dtype,
        shape,
        data,
    } in tensors
    {
        // Plan::new returned an error for every shape whose size overflows.
        let expected = byte_size(dtype, &shape).unwrap_or_default() as u64;
        let mut counted = CountingWriter {
            inner: &mut out,
            bytes: 0,
        };
        match data {
            TensorData::F32(values) => write_f32(&mut counted, values).map_err(failed)?,
            TensorData::Stream(write) => write(&mut counted).map_err(failed)?,
        }
        let got = counted.bytes;
        if got != expected {
            return Err(Error::WrongSize {
                path: path.to_path_buf(),
                name,
                unit: "bytes",
                expected,
                got,
            });
        }
    }
    out.flush().map_err(failed)?;
    Ok(out.get_ref().written())
}

/// The layout, which is known before the first byte is written.
struct Plan {
    /// The header with its length prefix and its padding.
    header: Vec<u8>,
    data_bytes: usize,
}

impl Plan {
    fn new(
        path: &Path,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorSource<'_>],
    ) -> Result<Plan> {
        let unwritable = |tensor: &TensorSource<'_>, got| Error::Unwritable {
            path: path.to_path_buf(),
            name: tensor.name.clone(),
            got,
        };
        let mut order: Vec<&TensorSource<'_>> = tensors.iter().collect();
        order.sort_by(|a, b| layout(a, b));

        let mut names = BTreeSet::new();
        let mut entries = Vec::with_capacity(order.len());
        let mut data_bytes = 0usize;
        for tensor in order {
            if tensor.name == METADATA {
                return Err(unwritable(
                    tensor,
                    "a name that the format keeps for itself",
                ));
            }
            if !names.insert(tensor.name.as_str()) {
                return Err(unwritable(tensor, "a name that another tensor has too"));
            }
            if matches!(tensor.data, TensorData::F32(_)) && tensor.dtype != Dtype::F32 {
                return Err(unwritable(tensor, "f32 numbers for another element type"));
            }
            let end = byte_size(tensor.dtype, &tensor.shape)
                .and_then(|size| data_bytes.checked_add(size));
            let end = end.ok_or_else(|| unwritable(tensor, "a shape whose size overflows"))?;
            let TensorSource {
                name, dtype, shape, ..
            } = tensor;
            entries.push((
                name.as_str(),
                EntryJson {
                    dtype: *dtype,
                    shape,
                    data_offsets: (data_bytes, end),
                },
            ));
            data_bytes = end;
        }

        let json = serde_json::to_vec(&HeaderJson { metadata, entries }).map_err(|source| {
            Error::Json {
                path: path.to_path_buf(),
                source,
            }
        })?;
        let padded = json.len().next_multiple_of(8);
        let mut header = Vec::with_capacity(8 + padded);
        header.extend_from_slice(&(padded as u64).to_le_bytes());
        header.extend_from_slice(&json);
        header.resize(8 + padded, b' ');
        Ok(Plan { header, data_bytes })
    }
}

fn byte_size(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    elements(shape)?.checked_mul(dtype.size_bytes())
}

/// Wide elements first, so that each tensor starts at a multiple of its element size; then by name.
fn layout(a: &TensorSource<'_>, b: &TensorSource<'_>) -> std::cmp::Ordering {
    b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name))
}

struct HeaderJson<'a> {
    metadata: &'a BTreeMap<String, String>,
    entries: Vec<(&'a str, EntryJson<'a>)>,
}

#[derive(Serialize)]
struct EntryJson<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: (usize, usize),
}

impl Serialize for HeaderJson<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, self.metadata)?;
        }
        for (name, entry) in &self.entries {
            map.serialize_entry(name, entry)?;
        }
        map.end()
    }
}

fn write_f32(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    const GROUP: usize = 4096;
    let mut bytes = [0u8; GROUP * 4];
    for group in values.chunks(GROUP) {
        for (slot, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(group) {
            *slot = value.to_le_bytes();
        }
        let filled = bytes
            .get(..group.len() * 4)
            .ok_or(io::ErrorKind::InvalidData)?;
        out.write_all(filled)?;
    }
    Ok(())
}

struct CountingWriter<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_four_megabytes(sink: impl Write) -> Result<Written> {
        let values = vec![1.0f32; 1 << 20];
        write_to(
            sink,
            Path::new("weights"),
            &BTreeMap::new(),
            vec![TensorSource::f32("w", &[1 << 20], &values)],
        )
    }

    #[test]
    fn a_sink_that_takes_little_at_a_time_gets_every_byte() {
        struct Trickle(Vec<u8>);
        impl Write for Trickle {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                let count = buffer.len().min(1000);
                self.0.extend_from_slice(&buffer[..count]);
                Ok(count)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut trickle = Trickle(Vec::new());
        let written = write_four_megabytes(&mut trickle).unwrap();
        assert_eq!(written, Written::of(&trickle.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_with_help() {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let message = write_four_megabytes(full).unwrap_err().to_string();
        assert!(
            message.starts_with("weights: cannot write it\n  got:      "),
            "{message}"
        );
        assert!(message.contains("help:     free space there"), "{message}");
    }
}
