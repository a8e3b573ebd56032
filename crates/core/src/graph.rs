//! A small tape: a model calls operations forward, and the tape replays them backward.
//!
//! In training, [`Graph`] notes each operation with what its backward pass needs; [`Graph::backward`]
//! walks the notes from the last to the first. In inference nothing is noted and memory is freed as the
//! model goes. A model is written once, forward only, and is the same code in both.
//!
//! One concern, in many short methods: the interface of every operation, with its shapes. What they compute is in `ops/`, and
//! the way back over the tape in `graph/tape.rs`.

mod tape;

use crate::config::ImageInput;
use crate::drop_path::{Branch, DropPath};
use crate::error;
use crate::gradients::{Finished, Gradients};
use crate::input_layer;
use crate::ops::{self, Recorder};
use crate::param::Param;
use crate::recompute::Recompute;
use crate::site::Site;
use crate::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;
use tape::{Lists, Node, RecomputedBlock, Tape, reborrow, walk};
use tokenformer_device::{Buffer, CachedSequence, Device, Result, Role, RotaryTable, Temp};

pub(crate) use crate::ops::SiteWeights;
pub use crate::ops::{LossTargets, OutputHead};

/// A network in blocks that can be recomputed: block `b` maps `[B, T, D]` to `[B, T, D]`.
pub trait Blocks: Sync {
    /// The output of block `b` for its input `h`.
    ///
    /// # Errors
    /// If the device fails.
    fn block<'m>(&'m self, g: &mut Graph<'m>, b: usize, h: Tensor) -> error::Result<Tensor>;
}

/// The operations a model is written in, with or without a tape.
pub struct Graph<'m> {
    rec: Recorder,
    tape: Option<Tape<'m>>,
    dropping: Option<DropPath>,
    watched: Option<Watched<'m>>,
}

/// What a graph keeps of the sites and attentions that it passes.
pub(crate) struct Watched<'m> {
    /// Whether all rows are kept, and not only the last.
    all_rows: bool,
    /// The sites in their order, with the weights of their tokens.
    pub sites: Vec<(&'m Site, SiteWeights)>,
    /// Queries and keys `[B, T, H·C]` of each attention, as they meet, if they are kept.
    pub attention: Option<Vec<[Vec<f32>; 2]>>,
}

impl<'m> Graph<'m> {
    /// A graph that only computes.
    pub fn inference(device: &Arc<dyn Device>) -> Self {
        Self {
            rec: Recorder {
                device: Arc::clone(device),
                vars: None,
                recompute: Recompute::None,
                flops: 0,
                newest_stage: None,
            },
            tape: None,
            dropping: None,
            watched: None,
        }
    }

    /// The same graph, in which parameter tokens born after `newest_stage` take no part: a grown model then computes
    /// with the tokens of its first stages alone ([`crate::ModelConfig::until_stage`]).
    ///
    /// # Panics
    /// In a training graph.
    pub fn until_stage(mut self, newest_stage: Option<u32>) -> Self {
        assert!(self.tape.is_none(), "a stage is chosen in inference only");
        self.rec.newest_stage = newest_stage;
        self
    }

    pub(crate) fn newest_stage(&self) -> Option<u32> {
        self.rec.newest_stage
    }

    /// The same graph, which also records the weights that each site gives its parameter tokens, for the last row or over all
    /// rows of each sequence, and with `attention` the queries and keys of each attention.
    pub(crate) fn watching(mut self, all_rows: bool, attention: bool) -> Self {
        self.watched = Some(Watched {
            all_rows,
            sites: Vec::new(),
            attention: attention.then(Vec::new),
        });
        self
    }

    /// What was kept.
    pub(crate) fn into_watched(self) -> Option<Watched<'m>> {
        self.watched
    }

    fn watch(&mut self, x: &Tensor, site: &'m Site) -> Result<()> {
        if let Some(watched) = &mut self.watched {
            let seen = ops::site_weights(&self.rec, x, site, watched.all_rows)?;
            watched.sites.push((site, seen));
        }
        Ok(())
    }

    /// A graph that also notes what [`Graph::backward`] needs; gradients are added to `gradients`.
    pub fn training(device: &Arc<dyn Device>, gradients: &'m mut Gradients) -> Self {
        let lists: &mut Lists = gradients.spare.get();
        Self {
            rec: Recorder {
                device: Arc::clone(device),
                vars: Some(0),
                recompute: Recompute::None,
                flops: 0,
                newest_stage: None,
            },
            tape: Some(Tape {
                nodes: lists.nodes.pop().unwrap_or_default(),
                gradients,
            }),
            dropping: None,
            watched: None,
        }
    }

    /// Floating-point operations of the forward pass so far, as [`Gradients::flops`] counts them.
    pub fn flops(&self) -> u64 {
        self.rec.flops
    }

    /// The same graph, whose backward pass recomputes what `recompute` says.
    pub fn recomputing(mut self, recompute: Recompute) -> Self {
        self.rec.recompute = recompute;
        self
    }

    /// The same graph, of whose samples some skip branches of blocks ([`DropPath`]). For training alone.
    pub fn dropping(mut self, dropping: DropPath) -> Self {
        self.dropping = Some(dropping);
        self
    }

    /// The device that computes.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.rec.device
    }

    /// Whether a tape records.
    pub fn records(&self) -> bool {
        self.tape.is_some()
    }

    fn note(&mut self, node: Option<Node<'m>>) {
        if let (Some(tape), Some(node)) = (&mut self.tape, node) {
            node.each_param(|param| tape.gradients.expect(param));
            tape.nodes.push(node);
        }
    }

    /// Rows `index` `[B·T]` of `table` `[V, D]`: `[B, T, D]`.
    ///
    /// # Errors
    /// If the device fails, as for every operation below.
    pub fn embed(&mut self, table: &'m Param, index: &[u32], batch: usize) -> Result<Tensor> {
        let (y, op) = ops::Embed::forward(&mut self.rec, table, index, batch)?;
        self.note(op.map(Node::Embed));
        Ok(y)
    }

    /// Rows `first..first + length` of `table` `[P, D]`, for each of `batch` sequences: `[B, T, D]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn positions(
        &mut self,
        table: &'m Param,
        first: usize,
        [batch, length]: [usize; 2],
    ) -> Result<Tensor> {
        self.with_lists(|g, index, _| {
            index.clear();
            let rows = (0..batch).flat_map(|_| first..first + length);
            index.extend(rows.map(|position| position as u32));
            g.embed(table, index, batch)
        })
    }

    /// Runs `run` with a list of indices and one of numbers, which are used again if a tape records.
    fn with_lists<T>(
        &mut self,
        run: impl FnOnce(&mut Self, &mut Vec<u32>, &mut Vec<f32>) -> T,
    ) -> T {
        let (mut index, mut numbers) = match self.lists() {
            Some(lists) => (
                std::mem::take(&mut lists.index),
                std::mem::take(&mut lists.numbers),
            ),
            None => Default::default(),
        };
        let result = run(self, &mut index, &mut numbers);
        if let Some(lists) = self.lists() {
            (lists.index, lists.numbers) = (index, numbers);
        }
        result
    }

    /// The patches of `pixels` `[B, C, H, W]` as rows `[B, P, C·ph·pw]`; they have no gradient.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn patch_rows(
        &mut self,
        input: &ImageInput,
        pixels: &[f32],
        batch: usize,
    ) -> Result<Tensor> {
        self.with_lists(|g, _, rows| {
            input_layer::patch_rows(input, pixels, rows);
            let mut data = g.rec.temp(rows.len())?;
            g.rec.device.write(rows, &mut data)?;
            let shape = [batch, input.patches(), input.patch_len()];
            Ok(Tensor::new(data.share(), shape, None))
        })
    }

    /// The sequence `[B, T, D]` of an image: patches `[B, P, D]`, before them a class token `[1, D]`, and a table `[T, D]`
    /// of positions added to both, with its parameter if the table is learned.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn assemble(
        &mut self,
        patches: Tensor,
        class: Option<&'m Param>,
        positions: Option<(&Buffer, Option<&'m Param>)>,
    ) -> Result<Tensor> {
        self.with_lists(|g, index, _| {
            let (y, op) = ops::Assemble::forward(&mut g.rec, patches, class, positions, index)?;
            g.note(op.map(Node::Assemble));
            Ok(y)
        })
    }

    /// The rows at `positions` of each sequence of `x` `[B, T, D]`: `[B, positions.len(), D]`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn rows_at(&mut self, x: &Tensor, positions: Range<usize>) -> Result<Tensor> {
        let [batch, length, _] = x.shape();
        self.with_lists(|g, index, _| {
            index.clear();
            let rows = (0..batch).flat_map(|b| positions.clone().map(move |at| b * length + at));
            index.extend(rows.map(|row| row as u32));
            let (y, op) = ops::Select::forward(&mut g.rec, x, index, batch)?;
            g.note(op.map(Node::Select));
            Ok(y)
        })
    }

    /// The mean of the rows of each sequence of `x` `[B, T, D]`: `[B, 1, D]`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn mean_rows(&mut self, x: &Tensor) -> Result<Tensor> {
        self.with_lists(|g, index, factors| {
            let (y, op) = ops::Mean::forward(&mut g.rec, x, index, factors)?;
            g.note(op.map(Node::Mean));
            Ok(y)
        })
    }

    /// The lists that are used again, if a tape records.
    fn lists(&mut self) -> Option<&mut Lists> {
        let tape = self.tape.as_mut()?;
        Some(tape.gradients.spare.get())
    }

    /// LayerNorm along the width, with gain and bias `[D]` if there are any.
    ///
    /// # Errors
    /// If the device fails.
    pub fn layer_norm(
        &mut self,
        x: &Tensor,
        affine: Option<[&'m Param; 2]>,
        eps: f32,
    ) -> Result<Tensor> {
        let (y, op) = ops::LayerNorm::forward(&mut self.rec, x, affine, eps)?;
        self.note(op.map(Node::LayerNorm));
        Ok(y)
    }

    /// `Θ(X·Kᵀ)·V` with the tokens of `site`: `[B, T, D_in]` → `[B, T, D_out]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn pattention(&mut self, x: Tensor, site: &'m Site) -> Result<Tensor> {
        if let Some(tape) = &mut self.tape {
            // These are counted with the gradients, because the graph of a recomputed pass is not counted.
            let gradients = &mut *tape.gradients;
            gradients.flops += gradients.scores.add(&self.rec, &x, site)?;
        }
        self.watch(&x, site)?;
        let (y, op) = ops::Pattention::forward(&mut self.rec, x, site)?;
        self.note(op.map(Node::Pattention));
        Ok(y)
    }

    /// [`Graph::pattention`] of one input at several sites of one shape, at once in inference.
    ///
    /// # Errors
    /// If the device fails.
    pub fn pattention_group<const N: usize>(
        &mut self,
        x: Tensor,
        sites: [&'m Site; N],
    ) -> Result<[Tensor; N]> {
        if self.tape.is_none() {
            for site in sites {
                self.watch(&x, site)?;
            }
            return ops::pattention_group(&mut self.rec, &x, sites);
        }
        let mut out = [const { None }; N];
        for (out, site) in out.iter_mut().zip(sites) {
            *out = Some(self.pattention(x.clone(), site)?);
        }
        // The loop has gone through all N sites.
        Ok(out.map(|y| y.expect("one output for each site")))
    }

    /// `X·Wᵀ + b`: `[B, T, inputs]` → `[B, T, outputs]`, with `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn linear(
        &mut self,
        x: Tensor,
        weight: &'m Param,
        bias: Option<&'m Param>,
    ) -> Result<Tensor> {
        let (y, op) = ops::Linear::forward(&mut self.rec, x, weight, bias, 1.0, Role::Activation)?;
        self.note(op.map(Node::Linear));
        Ok(y)
    }

    /// Exact GELU of each number.
    ///
    /// # Errors
    /// If the device fails.
    pub fn gelu(&mut self, x: Tensor) -> Result<Tensor> {
        let (y, op) = ops::Gelu::forward(&mut self.rec, x)?;
        self.note(op.map(Node::Gelu));
        Ok(y)
    }

    /// Rotary position embedding of `[B, T, H·C]`; the first row of a sequence stands at position `first`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn rotate(
        &mut self,
        x: Tensor,
        table: &Arc<RotaryTable>,
        heads: usize,
        first: usize,
    ) -> Result<Tensor> {
        let (y, op) = ops::Rotate::forward(&mut self.rec, x, table, heads, first)?;
        self.note(op.map(Node::Rotate));
        Ok(y)
    }

    /// Multi-head softmax attention between the tokens of each sequence; queries, keys and values `[B, T, H·C]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn attention(&mut self, qkv: [Tensor; 3], heads: usize, causal: bool) -> Result<Tensor> {
        if let Some(kept) = self.watched.as_mut().and_then(|w| w.attention.as_mut()) {
            let device = &*self.rec.device;
            kept.push([qkv[0].to_host(device)?, qkv[1].to_host(device)?]);
        }
        let (y, op) = ops::Attention::forward(&mut self.rec, qkv, heads, causal)?;
        self.note(op.map(Node::Attention));
        Ok(y)
    }

    /// Causal attention of new queries to a cache of keys and values `[B, capacity, H·C]` that holds `seen` positions.
    /// The new keys and values are stored behind them first.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// In a training graph: a cache has no gradient.
    pub fn attention_cached(
        &mut self,
        qkv: [Tensor; 3],
        heads: usize,
        seen: usize,
        capacity: usize,
        cache: &mut [Temp; 2],
    ) -> Result<Tensor> {
        assert!(self.tape.is_none(), "a cache is used in inference only");
        ops::attention_cached(&mut self.rec, qkv, heads, seen, capacity, cache)
    }

    /// Causal attention of the new rows `[1, R, H·C]` of several sequences, one after the other, to a cache of each. The new
    /// keys and values are stored in them first.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// In a training graph: a cache has no gradient.
    pub fn attention_each(
        &mut self,
        qkv: [Tensor; 3],
        heads: usize,
        sequences: &mut [CachedSequence<'_>],
    ) -> Result<Tensor> {
        assert!(self.tape.is_none(), "a cache is used in inference only");
        ops::attention_each(&mut self.rec, qkv, heads, sequences)
    }

    /// The rows of a rotary table at these positions, in inference.
    ///
    /// # Errors
    /// If the device fails.
    pub fn rotary_at(&mut self, table: &RotaryTable, positions: &[u32]) -> Result<RotaryTable> {
        let device = &*self.rec.device;
        let index = Temp::indices(&self.rec.device, positions)?;
        let half = table.dims / 2;
        let rows = |all: &Buffer| {
            let mut rows = device.alloc(positions.len() * half, Role::Weight)?;
            device.gather_rows(all, &index, half, &mut rows)?;
            Ok(rows)
        };
        Ok(RotaryTable {
            dims: table.dims,
            cos: rows(&table.cos)?,
            sin: rows(&table.sin)?,
        })
    }

    /// `a + b`, in the memory of `a` if nothing else needs it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        let (y, op) = ops::Add::forward(&mut self.rec, a, &b, None)?;
        self.note(op.map(Node::Add));
        Ok(y)
    }

    /// `h + y`, where `y` is what a branch of a block adds to the residual stream. Samples that skip it keep `h`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn add_branch(&mut self, h: Tensor, y: Tensor, branch: Branch) -> Result<Tensor> {
        let Some(dropping) = self.dropping else {
            return self.add(h, y);
        };
        self.with_lists(|g, _, numbers| {
            let batch = y.shape()[0];
            let factors = match dropping.fill(branch, batch, numbers) {
                true => {
                    let mut factors = g.rec.statistics(batch)?;
                    g.rec.device.write(numbers, &mut factors)?;
                    Some(factors)
                }
                false => None,
            };
            let (y, op) = ops::Add::forward(&mut g.rec, h, &y, factors)?;
            g.note(op.map(Node::Add));
            Ok(y)
        })
    }

    /// Rows `index` of `x`: `[index.len(), 1, D]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn select_rows(&mut self, x: &Tensor, index: &[u32]) -> Result<Tensor> {
        let (y, op) = ops::Select::forward(&mut self.rec, x, index, index.len())?;
        self.note(op.map(Node::Select));
        Ok(y)
    }

    /// `scale · X·Wᵀ + b`: `[B, T, D]` → `[B, T, V]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits(&mut self, hidden: &Tensor, head: OutputHead<'m>) -> Result<Tensor> {
        let OutputHead { table, bias, scale } = head;
        let (y, op) = ops::Linear::forward(
            &mut self.rec,
            hidden.clone(),
            table,
            bias,
            scale,
            Role::Statistic,
        )?;
        self.note(op.map(Node::Linear));
        Ok(y)
    }

    /// Cross-entropy (nats) of each row through the output head, `[B, T, 1]`. In training, the objective grows by
    /// `weight · Σ losses`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn loss(
        &mut self,
        hidden: &Tensor,
        head: OutputHead<'m>,
        targets: LossTargets<'_>,
        weight: f32,
    ) -> Result<Tensor> {
        let gradients = self.tape.as_mut().map(|tape| &mut *tape.gradients);
        let rec = &mut self.rec;
        let (y, op) = ops::Loss::forward(rec, hidden, head, targets, weight, gradients)?;
        self.note(op.map(Node::Loss));
        Ok(y)
    }

    /// Block `b` of `blocks` for the input `h`. If the tape recomputes blocks, it is one operation of which only the
    /// input is kept.
    ///
    /// # Errors
    /// If the device fails.
    pub fn block(&mut self, blocks: &'m dyn Blocks, b: usize, h: Tensor) -> error::Result<Tensor> {
        if self.tape.is_none() || self.rec.recompute != Recompute::Blocks {
            return blocks.block(self, b, h);
        }
        let tape = self.tape.take();
        let vars = self.rec.vars.take();
        let y = blocks.block(self, b, h.clone());
        (self.tape, self.rec.vars) = (tape, vars);
        let y = y?;
        let shape = y.shape();
        let y = self.rec.tensor(y.data, shape);
        let out = y.var;
        let dropping = self.dropping;
        self.note(out.map(|out| {
            Node::Block(RecomputedBlock {
                blocks,
                b,
                h,
                out,
                dropping,
            })
        }));
        Ok(y)
    }

    /// Adds the gradients of everything noted to the gradients given at the start.
    ///
    /// # Errors
    /// If the device fails.
    pub fn backward(self) -> Result<()> {
        self.walk_back(None)
    }

    /// As [`Graph::backward`], and gives each gradient to `finished` as soon as it is complete.
    ///
    /// # Errors
    /// If the device or `finished` fails.
    pub fn backward_to(self, finished: &mut dyn Finished) -> Result<()> {
        self.walk_back(Some(finished))
    }

    fn walk_back(self, mut finished: Option<&mut dyn Finished>) -> Result<()> {
        let (Some(tape), Some(vars)) = (self.tape, self.rec.vars) else {
            return Ok(());
        };
        let gradients = tape.gradients;
        gradients.flops += self.rec.flops;
        let device = &self.rec.device;
        let again = reborrow(&mut finished);
        walk(device, gradients, tape.nodes, vars, None, again)?;
        gradients.complete_all(finished)
    }
}
