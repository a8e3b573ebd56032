//! Learnable arrays.

use crate::config::ParamTraining;
use crate::path::{ParamPath, ParamRole};
use std::sync::Arc;
use tokenformer_device::{Buffer, Device, PackedMatrix, Result, Role, WeightFormat};

/// A learnable array of a model.
#[derive(Debug)]
pub struct Param {
    id: usize,
    path: ParamPath,
    name: String,
    shape: Vec<usize>,
    value: Buffer,
    /// How it is trained.
    pub training: ParamTraining,
}

/// Parameter tokens and width of an array that has a row for each of them.
fn tokens(path: ParamPath, shape: &[usize]) -> Option<[usize; 2]> {
    match (path.role, shape) {
        (ParamRole::Keys | ParamRole::Values, &[tokens, width]) => Some([tokens, width]),
        _ => None,
    }
}

impl Param {
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        id: usize,
        path: ParamPath,
        shape: Vec<usize>,
        numbers: Vec<f32>,
    ) -> Result<Self> {
        Ok(Self {
            id,
            path,
            name: path.to_string(),
            value: match tokens(path, &shape) {
                Some(size) => device.alloc_tokens_from(numbers, size, Role::Weight)?,
                None => device.alloc_from(numbers, Role::Weight)?,
            },
            shape,
            training: ParamTraining::default(),
        })
    }

    /// Takes the array out and leaves an empty one in its place.
    pub(crate) fn take(&mut self) -> Self {
        let hollow = Self {
            id: self.id,
            path: self.path,
            name: String::new(),
            shape: Vec::new(),
            value: Buffer::empty(),
            training: self.training,
        };
        std::mem::replace(self, hollow)
    }

    /// The same array in another place of the network.
    pub(crate) fn moved_to(mut self, path: ParamPath) -> Self {
        self.path = path;
        self.name = path.to_string();
        self
    }

    /// Packs a matrix for inference, for products with its transpose or with itself.
    pub(crate) fn pack(
        &mut self,
        device: &Arc<dyn Device>,
        transposed: bool,
        format: WeightFormat,
    ) -> Result<()> {
        let matrix = PackedMatrix {
            rows: self.shape[0],
            cols: self.shape[1],
            transposed,
        };
        let value = std::mem::replace(&mut self.value, Buffer::empty());
        self.value = device.pack_weights(value, matrix, format)?;
        Ok(())
    }

    /// Number of this parameter within its model, for as long as the model lives.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Its place and role.
    pub fn path(&self) -> ParamPath {
        self.path
    }

    /// Its name in files, for example `blocks.0.query.segments.0.keys`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lengths of its axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Parameter tokens and width, if it has a row for each token of a segment.
    pub(crate) fn tokens(&self) -> Option<[usize; 2]> {
        tokens(self.path, &self.shape)
    }

    /// An array of this shape and role, zeroed.
    pub(crate) fn zeros(&self, device: &dyn Device, role: Role) -> Result<Buffer> {
        match self.tokens() {
            Some(size) => device.alloc_tokens(size, role),
            None => device.alloc(self.len(), role),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Whether training changes it.
    pub fn trainable(&self) -> bool {
        self.training.trainable
    }

    /// Its numbers on the device.
    pub fn value(&self) -> &Buffer {
        &self.value
    }

    /// Its numbers on the device, mutable.
    pub fn value_mut(&mut self) -> &mut Buffer {
        &mut self.value
    }
}
