//! One block: attention between tokens, then a feed-forward network, each added to the residual stream.

use crate::cache::Past;
use crate::config::{BlockConfig, Residual, SiteKind};
use crate::drop_path::Branch;
use crate::graph::Graph;
use crate::layers::{Layer, Norm};
use crate::param::Param;
use crate::site::Site;
use crate::tensor::Tensor;
use std::sync::Arc;
use tokenformer_device::{Result, RotaryTable};

/// One block.
#[derive(Debug)]
pub struct Block {
    pub(crate) stage: u32,
    pub(crate) attention_norm: Norm,
    pub(crate) query: Layer,
    pub(crate) key: Layer,
    pub(crate) value: Layer,
    pub(crate) proj: Layer,
    pub(crate) ffn_norm: Norm,
    pub(crate) ffn: Layer,
}

/// What the blocks of a network share.
#[derive(Debug)]
pub(crate) struct AttentionSettings {
    pub heads: usize,
    pub causal: bool,
    pub residual: Residual,
    /// Blocks of the network.
    pub blocks: usize,
    pub rotary: Option<Arc<RotaryTable>>,
}

impl AttentionSettings {
    /// Queries and keys with their rotary positions, the first of each sequence at position `first`; values as they are.
    pub fn apply_rotary(
        &self,
        g: &mut Graph<'_>,
        qkv: [Tensor; 3],
        first: usize,
    ) -> Result<[Tensor; 3]> {
        self.apply_rotary_table(g, qkv, self.rotary.as_ref(), first)
    }

    /// As [`AttentionSettings::apply_rotary`], by this table.
    pub fn apply_rotary_table(
        &self,
        g: &mut Graph<'_>,
        qkv: [Tensor; 3],
        table: Option<&Arc<RotaryTable>>,
        first: usize,
    ) -> Result<[Tensor; 3]> {
        let Some(table) = table else {
            return Ok(qkv);
        };
        let [q, k, v] = qkv;
        let q = g.rotate(q, table, self.heads, first)?;
        Ok([q, g.rotate(k, table, self.heads, first)?, v])
    }
}

impl Block {
    /// The residual stream `[B, T, D]` after block number `b`.
    pub(crate) fn forward<'m>(
        &'m self,
        g: &mut Graph<'m>,
        how: &AttentionSettings,
        b: usize,
        h: Tensor,
        past: Option<&mut dyn Past>,
    ) -> Result<Tensor> {
        let [attention, ffn] = [0, 1].map(|number| Branch {
            block: b,
            blocks: how.blocks,
            number,
        });
        let u = self.attention_norm.forward(g, &h)?;
        match how.residual {
            Residual::Sequential => {
                let y = self.attend(g, how, u, past)?;
                let h = g.add_branch(h, y, attention)?;
                let u = self.ffn_norm.forward(g, &h)?;
                let y = self.ffn.forward(g, u)?;
                g.add_branch(h, y, ffn)
            }
            Residual::Parallel => {
                let v = self.ffn_norm.forward(g, &h)?;
                let y = self.attend(g, how, u, past)?;
                let h = g.add_branch(h, y, attention)?;
                let y = self.ffn.forward(g, v)?;
                g.add_branch(h, y, ffn)
            }
        }
    }

    /// Softmax attention between the tokens of each sequence, between layers of learnable weights.
    fn attend<'m>(
        &'m self,
        g: &mut Graph<'m>,
        how: &AttentionSettings,
        u: Tensor,
        past: Option<&mut dyn Past>,
    ) -> Result<Tensor> {
        let layers = [&self.query, &self.key, &self.value];
        let qkv = Layer::forward_three(layers, g, u)?;
        let c = match past {
            Some(past) => past.attend(g, how, qkv)?,
            None => {
                let qkv = how.apply_rotary(g, qkv, 0)?;
                g.attention(qkv, how.heads, how.causal)?
            }
        };
        self.proj.forward(g, c)
    }

    /// Its description.
    pub fn config(&self) -> BlockConfig {
        BlockConfig {
            stage: self.stage,
            query: self.query.config(),
            key: self.key.config(),
            value: self.value.config(),
            proj: self.proj.config(),
            ffn: self.ffn.config(),
        }
    }

    /// A layer.
    pub fn layer(&self, kind: SiteKind) -> &Layer {
        match kind {
            SiteKind::Query => &self.query,
            SiteKind::Key => &self.key,
            SiteKind::Value => &self.value,
            SiteKind::Proj => &self.proj,
            SiteKind::Ffn => &self.ffn,
        }
    }

    /// A layer, mutable.
    pub fn layer_mut(&mut self, kind: SiteKind) -> &mut Layer {
        match kind {
            SiteKind::Query => &mut self.query,
            SiteKind::Key => &mut self.key,
            SiteKind::Value => &mut self.value,
            SiteKind::Proj => &mut self.proj,
            SiteKind::Ffn => &mut self.ffn,
        }
    }

    /// A layer, if it is a Pattention site.
    pub fn site(&self, kind: SiteKind) -> Option<&Site> {
        self.layer(kind).site()
    }

    /// A layer, mutable, if it is a Pattention site.
    pub fn site_mut(&mut self, kind: SiteKind) -> Option<&mut Site> {
        self.layer_mut(kind).site_mut()
    }

    /// Its layers with their kinds, in the order of files.
    pub fn layers(&self) -> [(SiteKind, &Layer); 5] {
        SiteKind::ALL.map(|kind| (kind, self.layer(kind)))
    }

    pub(crate) fn layers_mut(&mut self) -> [&mut Layer; 5] {
        [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.proj,
            &mut self.ffn,
        ]
    }

    /// Its arrays, in the order of files: layers, then norms.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        let norms = [&self.attention_norm, &self.ffn_norm];
        let norms = norms.into_iter().flat_map(|norm| &norm.affine).flatten();
        let layers = self.layers().into_iter();
        layers.flat_map(|(_, layer)| layer.params()).chain(norms)
    }

    /// Its arrays, mutable.
    pub fn params_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        let norms = [&mut self.attention_norm, &mut self.ffn_norm];
        let norms = norms
            .into_iter()
            .flat_map(|norm| &mut norm.affine)
            .flatten();
        let layers = [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.proj,
            &mut self.ffn,
        ];
        layers.into_iter().flat_map(Layer::params_mut).chain(norms)
    }
}
