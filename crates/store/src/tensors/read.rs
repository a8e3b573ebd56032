//! The memory-mapped reader.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use super::Dtype;
use super::convert;
use super::header::{self, Header, Stored, TensorInfo};
use crate::error::shown;
use crate::hash::open_regular;
use crate::{Error, Result};

/// An open `.safetensors` file. Only its header is read until a tensor is requested.
pub struct SafetensorsFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl SafetensorsFile {
    /// Maps the file and checks its header: every tensor's bytes are in the file, none overlap, no bytes are unused,
    /// no name repeats.
    ///
    /// If another program changes or shortens the file in place while it is open, the numbers change under the reader,
    /// or the process is killed. This crate never writes to a file under its final name.
    ///
    /// # Errors
    /// [`Error::Safetensors`], [`Error::Io`].
    pub fn open(path: &Path) -> Result<SafetensorsFile> {
        let (file, _) = open_regular(path)?;
        // SAFETY: the map is only read, as bytes, for which every value is valid. This crate replaces files by renaming
        // and never changes one in place; the documentation above requires the same of other programs.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map it into memory", path))?;
        let header = header::parse(path, &map)?;
        Ok(SafetensorsFile {
            path: path.to_path_buf(),
            map,
            header,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor has this name.
    pub fn contains(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// The free-form strings of the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Releases the memory pages of a tensor that was read and is not needed again soon; until then they count as
    /// memory of this process, in addition to the numbers that were made from them. They are read again when they are
    /// needed.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn release(&self, name: &str) -> Result<()> {
        self.release_range(&self.info(name)?.range);
        Ok(())
    }

    /// As [`release`](Self::release), for all tensors.
    pub fn release_all(&self) {
        self.release_range(&(0..self.map.len()));
    }

    fn release_range(&self, range: &Range<usize>) {
        #[cfg(unix)]
        {
            // SAFETY: the map is a read-only map of a file, so released pages are read again with the same bytes, and
            // slices of them stay valid.
            let advised = unsafe {
                self.map
                    .unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
            };
            // This is only advice: if the system ignores it, the process just uses more memory.
            let _ = advised;
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// A tensor's shape; empty for a scalar.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    /// A tensor's element type in the file.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongDtype`] for an unknown type. A tensor of an unknown type causes no error
    /// until it is requested.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        let info = self.info(name)?;
        self.known(name, info, KNOWN)
    }

    /// Returns an error if a tensor has another shape than `expected`.
    ///
    /// # Errors
    /// [`Error::WrongShape`], [`Error::MissingTensor`].
    pub fn expect_shape(&self, name: &str, expected: &[usize]) -> Result<()> {
        let got = self.shape(name)?;
        if got == expected {
            return Ok(());
        }
        Err(Error::WrongShape {
            path: self.path.clone(),
            name: name.to_string(),
            expected: expected.to_vec(),
            got: got.to_vec(),
        })
    }

    /// A tensor's bytes as they are in the file: row-major, little-endian, not necessarily aligned.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        Ok(self.slice(self.info(name)?))
    }

    /// A floating-point tensor, row-major, from `F32`, `F16`, `BF16` or `F64` (rounded).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongDtype`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.info(name)?;
        self.read_floats(name, info, convert::to_f32)
    }

    /// Like [`read_f32`](Self::read_f32), without rounding.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongDtype`].
    pub fn read_f64(&self, name: &str) -> Result<Vec<f64>> {
        let info = self.info(name)?;
        self.read_floats(name, info, convert::to_f64)
    }

    /// Like [`read_f32`](Self::read_f32), into a buffer that has exactly the tensor's elements.
    ///
    /// # Errors
    /// [`Error::WrongSize`], [`Error::MissingTensor`], [`Error::WrongDtype`].
    pub fn read_f32_into(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let info = self.info(name)?;
        let dtype = self.known(name, info, FLOATS)?;
        let count = self.slice(info).len() / dtype.size_bytes();
        if out.len() != count {
            return Err(Error::WrongSize {
                path: self.path.clone(),
                name: name.to_string(),
                unit: "elements",
                expected: count as u64,
                got: out.len() as u64,
            });
        }
        self.require(
            convert::to_f32(dtype, self.slice(info), out),
            name,
            info,
            FLOATS,
        )
    }

    /// An integer tensor, row-major, from any integer type; each number must be in the range of `u32`.
    ///
    /// # Errors
    /// [`Error::IntegerRange`], [`Error::MissingTensor`], [`Error::WrongDtype`].
    pub fn read_u32(&self, name: &str) -> Result<Vec<u32>> {
        let info = self.info(name)?;
        let dtype = self.known(name, info, INTEGERS)?;
        match convert::to_u32(dtype, self.slice(info)) {
            Some(Ok(values)) => Ok(values),
            Some(Err(convert::OutOfRange { index, value })) => Err(Error::IntegerRange {
                path: self.path.clone(),
                name: name.to_string(),
                index,
                value,
            }),
            None => Err(self.wrong_dtype(name, info, INTEGERS)),
        }
    }

    fn read_floats<T: Clone + Default>(
        &self,
        name: &str,
        info: &TensorInfo,
        convert: impl Fn(Dtype, &[u8], &mut [T]) -> bool,
    ) -> Result<Vec<T>> {
        let dtype = self.known(name, info, FLOATS)?;
        let bytes = self.slice(info);
        let mut out = vec![T::default(); bytes.len() / dtype.size_bytes()];
        self.require(convert(dtype, bytes, &mut out), name, info, FLOATS)?;
        Ok(out)
    }

    fn known(&self, name: &str, info: &TensorInfo, expected: &'static str) -> Result<Dtype> {
        info.known()
            .ok_or_else(|| self.wrong_dtype(name, info, expected))
    }

    fn require(
        &self,
        converted: bool,
        name: &str,
        info: &TensorInfo,
        expected: &'static str,
    ) -> Result<()> {
        if converted {
            Ok(())
        } else {
            Err(self.wrong_dtype(name, info, expected))
        }
    }

    fn wrong_dtype(&self, name: &str, info: &TensorInfo, expected: &'static str) -> Error {
        Error::WrongDtype {
            path: self.path.clone(),
            name: name.to_string(),
            expected,
            got: match &info.dtype {
                Stored::Known(dtype) => dtype.to_string(),
                Stored::Other(other) => shown(other),
            },
        }
    }

    fn slice(&self, info: &TensorInfo) -> &[u8] {
        // In range for every header that `parse` lets through.
        self.map.get(info.range.clone()).unwrap_or_default()
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.header
            .tensors
            .get(name)
            .ok_or_else(|| Error::MissingTensor {
                path: self.path.clone(),
                name: name.to_string(),
                near: tokenformer_base::similar(name, self.names()),
                count: self.header.tensors.len(),
            })
    }
}

const FLOATS: &str = "F32, F16, BF16 or F64";
const INTEGERS: &str = "U8, I8, U16, I16, U32, I32, U64 or I64";
const KNOWN: &str = "F64, F32, F16, BF16, an integer type or BOOL";

impl TensorInfo {
    fn known(&self) -> Option<Dtype> {
        match self.dtype {
            Stored::Known(dtype) => Some(dtype),
            Stored::Other(_) => None,
        }
    }
}
