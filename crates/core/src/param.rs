//! Learnable arrays.

use crate::config::{ParamTraining, SiteKind};
use std::fmt;
use std::sync::Arc;
use tokenformer_device::{Buffer, Device, PackedMatrix, Result, Role, WeightFormat};

/// What an array does in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamRole {
    /// Table `[V, D]` of token embeddings.
    Embedding,
    /// Table `[T, D]` of learned positions.
    Positions,
    /// Table `[V, D]` of an untied output head.
    Head,
    /// The class token `[1, D]`, which stands before the patches of an image.
    ClassToken,
    /// Keys `[N, D_in]` of a segment.
    Keys,
    /// Values `[N, D_out]` of a segment.
    Values,
    /// Weight `[outputs, inputs]` of a linear layer.
    Weight,
    /// Bias of a linear layer, a norm or a head.
    Bias,
    /// Gain of a norm.
    Gain,
}

/// Where an array lies in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Before or after the blocks of a language model: `embedding`, `positions`, `head`.
    Trunk(&'static str),
    /// Before or after the blocks of an image model: `patches`, `class_token`, `positions`, `head`.
    Image(&'static str),
    /// A norm of the trunk, `final_norm`, or of a block.
    Norm {
        /// Number of the block; `None` for the trunk.
        block: Option<usize>,
        /// Name of the norm.
        name: &'static str,
    },
    /// A segment of a Pattention site.
    Segment {
        /// Number of the block.
        block: usize,
        /// Which layer of it.
        kind: SiteKind,
        /// The segment's number.
        id: u32,
    },
    /// A projection of a linear layer (`""`) or an MLP (`up`, `down`).
    Linear {
        /// Number of the block.
        block: usize,
        /// Which layer of it.
        kind: SiteKind,
        /// Which projection of the layer.
        name: &'static str,
    },
    /// A projection of hidden units that an MLP has grown by.
    Part {
        /// Number of the block.
        block: usize,
        /// Which layer of it.
        kind: SiteKind,
        /// The part's number.
        id: u32,
        /// Which projection of the part, `up` or `down`.
        name: &'static str,
    },
}

/// Where an array lies and what it does there: its name as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamPath {
    /// Where.
    pub place: Place,
    /// What.
    pub role: ParamRole,
}

impl ParamPath {
    /// A path.
    pub fn new(place: Place, role: ParamRole) -> Self {
        Self { place, role }
    }

    /// Whether weight decay applies: to matrices and tables, not to norms and biases; nor to the class token and the
    /// positions of an image model, which timm's training leaves alone.
    pub fn decays(&self) -> bool {
        match self.role {
            ParamRole::Bias | ParamRole::Gain | ParamRole::ClassToken => false,
            ParamRole::Positions => !matches!(self.place, Place::Image(_)),
            _ => true,
        }
    }

    /// Number of the block; `None` for the trunk.
    pub fn block(&self) -> Option<usize> {
        match self.place {
            Place::Trunk(_) | Place::Image(_) => None,
            Place::Norm { block, .. } => block,
            Place::Segment { block, .. }
            | Place::Linear { block, .. }
            | Place::Part { block, .. } => Some(block),
        }
    }

    /// The same place in block `b`; the trunk is in no block.
    pub fn in_block(mut self, b: usize) -> Self {
        match &mut self.place {
            Place::Norm {
                block: Some(block), ..
            } => *block = b,
            Place::Segment { block, .. }
            | Place::Linear { block, .. }
            | Place::Part { block, .. } => *block = b,
            Place::Trunk(_) | Place::Image(_) | Place::Norm { block: None, .. } => {}
        }
        self
    }

    /// Which layer of a block.
    pub fn kind(&self) -> Option<SiteKind> {
        match self.place {
            Place::Trunk(_) | Place::Image(_) | Place::Norm { .. } => None,
            Place::Segment { kind, .. } | Place::Linear { kind, .. } | Place::Part { kind, .. } => {
                Some(kind)
            }
        }
    }
}

/// The name in files, for example `blocks.0.query.segments.0.keys`.
impl fmt::Display for ParamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            // The tables of language models are called by their bare names.
            Place::Trunk(name) if self.role != ParamRole::Bias => return f.write_str(name),
            Place::Trunk(name) | Place::Image(name) => f.write_str(name)?,
            Place::Norm { block: None, name } => write!(f, "{name}")?,
            Place::Norm {
                block: Some(b),
                name,
            } => write!(f, "blocks.{b}.{name}")?,
            Place::Segment { block, kind, id } => {
                write!(f, "blocks.{block}.{}.segments.{id}", kind.name())?;
            }
            Place::Linear { block, kind, name } => {
                write!(f, "blocks.{block}.{}", kind.name())?;
                if !name.is_empty() {
                    write!(f, ".{name}")?;
                }
            }
            Place::Part {
                block,
                kind,
                id,
                name,
            } => write!(f, "blocks.{block}.{}.parts.{id}.{name}", kind.name())?,
        }
        f.write_str(match self.role {
            ParamRole::Keys => ".keys",
            ParamRole::Values => ".values",
            ParamRole::Bias => ".bias",
            ParamRole::Gain => ".gain",
            ParamRole::Weight
            | ParamRole::Embedding
            | ParamRole::Positions
            | ParamRole::Head
            | ParamRole::ClassToken => ".weight",
        })
    }
}

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
            shape,
            value: device.alloc_from(numbers, Role::Weight)?,
            training: ParamTraining::default(),
        })
    }

    /// Takes the array out of its place, in which one without numbers stays.
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

    /// Where it lies and what it does there.
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

    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether there are none.
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

    /// Its numbers on the device, to change.
    pub fn value_mut(&mut self) -> &mut Buffer {
        &mut self.value
    }
}
