//! Building a network from its configuration: every array by its path and shape.

use crate::block::Block;
use crate::config::{
    BlockConfig, HeadKind, ImageInput, Input, LayerConfig, ModelConfig, NormKind, Positions,
    SegmentConfig, SiteKind,
};
use crate::error::{Error, Result};
use crate::layers::{Layer, Linear, Norm, Part};
use crate::param::Param;
use crate::path::{ParamPath, ParamRole, Place};
use crate::site::{Segment, Site};
use std::collections::HashMap;
use std::sync::Arc;
use tokenformer_device::{Device, WeightFormat};

/// Gives the numbers of an array by path and shape, when a model is built.
pub type Weights<'a> = dyn FnMut(&ParamPath, &[usize]) -> Result<Vec<f32>> + 'a;

/// The paths of the arrays of block `b`.
pub(crate) fn block_paths(config: &ModelConfig, b: usize) -> Vec<ParamPath> {
    let mut paths = Vec::new();
    for kind in SiteKind::ALL {
        match config.blocks[b].layer(kind) {
            LayerConfig::Pattention(site) => {
                for segment in &site.segments {
                    let (block, id) = (b, segment.id);
                    let place = Place::Segment { block, kind, id };
                    let parts = [ParamRole::Keys, ParamRole::Values];
                    paths.extend(parts.map(|role| ParamPath::new(place, role)));
                }
            }
            &LayerConfig::Linear { bias } => paths.extend(linear_paths(b, kind, "", bias)),
            LayerConfig::Mlp { bias, parts, .. } => {
                paths.extend(linear_paths(b, kind, "up", *bias));
                paths.extend(linear_paths(b, kind, "down", *bias));
                for part in parts {
                    let place = |name| part_place(b, kind, part.id, name);
                    paths.push(ParamPath::new(place("up"), ParamRole::Weight));
                    if *bias {
                        paths.push(ParamPath::new(place("up"), ParamRole::Bias));
                    }
                    paths.push(ParamPath::new(place("down"), ParamRole::Weight));
                }
            }
        }
    }
    if config.block_norm == NormKind::Affine {
        for name in ["attention_norm", "ffn_norm"] {
            let block = Some(b);
            let place = Place::Norm { block, name };
            let parts = [ParamRole::Gain, ParamRole::Bias];
            paths.extend(parts.map(|role| ParamPath::new(place, role)));
        }
    }
    paths
}

/// The place of an array before or after the blocks.
pub(crate) fn trunk(config: &ModelConfig, name: &'static str) -> Place {
    match config.input {
        Input::Tokens => Place::Trunk(name),
        Input::Image(_) => Place::Image(name),
    }
}

/// The paths of all arrays.
pub(crate) fn all_paths(config: &ModelConfig) -> Vec<ParamPath> {
    let table = |name, role| ParamPath::new(trunk(config, name), role);
    let mut paths = match &config.input {
        Input::Tokens => vec![table("embedding", ParamRole::Embedding)],
        Input::Image(_) => [ParamRole::Weight, ParamRole::Bias]
            .map(|role| table("patches", role))
            .to_vec(),
    };
    if config
        .input
        .image()
        .is_some_and(ImageInput::has_class_token)
    {
        paths.push(table("class_token", ParamRole::ClassToken));
    }
    if config.positions == Positions::Learned {
        paths.push(table("positions", ParamRole::Positions));
    }
    paths.extend((0..config.layers()).flat_map(|b| block_paths(config, b)));
    if config.final_norm == NormKind::Affine {
        let (block, name) = (None, "final_norm");
        let parts = [ParamRole::Gain, ParamRole::Bias];
        paths.extend(parts.map(|role| ParamPath::new(Place::Norm { block, name }, role)));
    }
    if config.head == HeadKind::Untied {
        paths.push(table("head", ParamRole::Head));
    }
    if config.head_bias {
        paths.push(table("head", ParamRole::Bias));
    }
    paths
}

fn linear_place(block: usize, kind: SiteKind, name: &'static str) -> Place {
    Place::Linear { block, kind, name }
}

fn part_place(block: usize, kind: SiteKind, id: u32, name: &'static str) -> Place {
    Place::Part {
        block,
        kind,
        id,
        name,
    }
}

fn linear_paths(
    block: usize,
    kind: SiteKind,
    name: &'static str,
    bias: bool,
) -> impl Iterator<Item = ParamPath> {
    let place = linear_place(block, kind, name);
    let bias = bias.then(|| ParamPath::new(place, ParamRole::Bias));
    std::iter::once(ParamPath::new(place, ParamRole::Weight)).chain(bias)
}

/// Makes the parameters of a model, numbering them.
pub(crate) struct Builder<'a, 'w> {
    pub device: &'a Arc<dyn Device>,
    pub next_id: usize,
    pub weights: &'a mut Weights<'w>,
    /// Arrays that exist already, by the names that they have in the new network: they stay where they are.
    pub kept: HashMap<String, Param>,
    /// For inference: the format in which matrices are packed, one by one.
    pub pack: Option<WeightFormat>,
}

impl Builder<'_, '_> {
    pub(crate) fn param(&mut self, path: ParamPath, shape: Vec<usize>) -> Result<Param> {
        if let Some(param) = self.kept.remove(&path.to_string()) {
            return Ok(param.moved_to(path));
        }
        let host = (self.weights)(&path, &shape)?;
        if host.len() != shape.iter().product::<usize>() {
            return Err(Error::Tensor {
                name: path.to_string(),
                reason: format!("{} numbers were given", host.len()),
                expected: shape,
            });
        }
        self.next_id += 1;
        Ok(Param::new(
            self.device,
            self.next_id - 1,
            path,
            shape,
            host,
        )?)
    }

    /// A matrix `[rows, cols]`; products are with its transpose (`X·Wᵀ`), or with itself.
    pub(crate) fn matrix(
        &mut self,
        path: ParamPath,
        shape: [usize; 2],
        transposed: bool,
    ) -> Result<Param> {
        let mut param = self.param(path, shape.to_vec())?;
        if let Some(format) = self.pack {
            param.pack(self.device, transposed, format)?;
        }
        Ok(param)
    }

    /// A table before or after the blocks, `[rows, width]`. Positions and the class token are only ever looked up, in
    /// f32.
    pub(crate) fn table(
        &mut self,
        place: Place,
        role: ParamRole,
        shape: [usize; 2],
    ) -> Result<Param> {
        let path = ParamPath::new(place, role);
        match role {
            ParamRole::Positions | ParamRole::ClassToken => self.param(path, shape.to_vec()),
            _ => self.matrix(path, shape, true),
        }
    }

    pub(crate) fn norm(
        &mut self,
        block: Option<usize>,
        name: &'static str,
        kind: NormKind,
        config: &ModelConfig,
    ) -> Result<Norm> {
        let mut part = |role| {
            let path = ParamPath::new(Place::Norm { block, name }, role);
            self.param(path, vec![config.width])
        };
        let affine = match kind {
            NormKind::Affine => Some([part(ParamRole::Gain)?, part(ParamRole::Bias)?]),
            NormKind::Plain => None,
        };
        Ok(Norm {
            affine,
            eps: config.norm_eps as f32,
        })
    }

    fn segment(
        &mut self,
        block: usize,
        kind: SiteKind,
        config: &SegmentConfig,
        width: usize,
    ) -> Result<Segment> {
        let place = Place::Segment {
            block,
            kind,
            id: config.id,
        };
        let shape = [config.tokens, width];
        let keys = self.matrix(ParamPath::new(place, ParamRole::Keys), shape, true)?;
        let values = self.matrix(ParamPath::new(place, ParamRole::Values), shape, false)?;
        Ok(Segment::new(config, keys, values))
    }

    pub(crate) fn linear(&mut self, place: Place, shape: [usize; 2], bias: bool) -> Result<Linear> {
        let weight = self.matrix(ParamPath::new(place, ParamRole::Weight), shape, true)?;
        let bias = match bias {
            true => Some(self.param(ParamPath::new(place, ParamRole::Bias), vec![shape[0]])?),
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    fn layer(&mut self, b: usize, kind: SiteKind, config: &LayerConfig, d: usize) -> Result<Layer> {
        Ok(match config {
            LayerConfig::Pattention(site) => {
                let segments = (site.segments.iter())
                    .map(|segment| self.segment(b, kind, segment, d))
                    .collect::<Result<Vec<_>>>()?;
                Layer::Pattention(Site::new(site, segments))
            }
            LayerConfig::Linear { bias } => {
                Layer::Linear(self.linear(linear_place(b, kind, ""), [d, d], *bias)?)
            }
            LayerConfig::Mlp {
                hidden,
                bias,
                parts,
            } => Layer::Mlp {
                up: self.linear(linear_place(b, kind, "up"), [*hidden, d], *bias)?,
                down: self.linear(linear_place(b, kind, "down"), [d, *hidden], *bias)?,
                parts: (parts.iter())
                    .map(|part| {
                        let place = |name| part_place(b, kind, part.id, name);
                        Ok(Part {
                            config: part.clone(),
                            up: self.linear(place("up"), [part.hidden, d], *bias)?,
                            // One bias of the output is enough for all parts.
                            down: self.linear(place("down"), [d, part.hidden], false)?,
                        })
                    })
                    .collect::<Result<_>>()?,
            },
        })
    }

    pub(crate) fn block(
        &mut self,
        b: usize,
        block: &BlockConfig,
        all: &ModelConfig,
    ) -> Result<Block> {
        let mut layer = |kind| self.layer(b, kind, block.layer(kind), all.width);
        let (query, key) = (layer(SiteKind::Query)?, layer(SiteKind::Key)?);
        let (value, proj) = (layer(SiteKind::Value)?, layer(SiteKind::Proj)?);
        let ffn = layer(SiteKind::Ffn)?;
        let attention_norm = self.norm(Some(b), "attention_norm", all.block_norm, all)?;
        let ffn_norm = self.norm(Some(b), "ffn_norm", all.block_norm, all)?;
        Ok(Block {
            stage: block.stage,
            attention_norm,
            query,
            key,
            value,
            proj,
            ffn_norm,
            ffn,
        })
    }
}
