//! What a graph notes in training, and the walk back over it.

use super::{Blocks, Graph};
use crate::drop_path::DropPath;
use crate::error;
use crate::gradients::{Finished, Gradients};
use crate::ops::{self, Backward};
use crate::param::Param;
use crate::recompute::Recompute;
use crate::tensor::{Tensor, Var};
use std::sync::Arc;
use tokenformer_device::{Device, Result, SharedTemp};

/// One noted operation.
#[expect(
    clippy::large_enum_variant,
    reason = "boxes would be allocated in every step; the list of notes is kept"
)]
pub(super) enum Node<'m> {
    Embed(ops::Embed<'m>),
    Select(ops::Select),
    Assemble(ops::Assemble<'m>),
    Mean(ops::Mean),
    LayerNorm(ops::LayerNorm<'m>),
    Pattention(ops::Pattention<'m>),
    Linear(ops::Linear<'m>),
    Gelu(ops::Gelu),
    Rotate(ops::Rotate),
    Attention(ops::Attention),
    Add(ops::Add),
    Loss(ops::Loss<'m>),
    Block(RecomputedBlock<'m>),
}

impl Node<'_> {
    fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        match self {
            Self::Embed(op) => op.backward(back),
            Self::Select(op) => op.backward(back),
            Self::Assemble(op) => op.backward(back),
            Self::Mean(op) => op.backward(back),
            Self::LayerNorm(op) => op.backward(back),
            Self::Pattention(op) => op.backward(back),
            Self::Linear(op) => op.backward(back),
            Self::Gelu(op) => op.backward(back),
            Self::Rotate(op) => op.backward(back),
            Self::Attention(op) => op.backward(back),
            Self::Add(op) => op.backward(back),
            Self::Loss(op) => op.backward(back),
            Self::Block(op) => op.backward(back),
        }
    }

    /// Calls `each` for every parameter whose gradient [`Node::backward`] adds to. Those of a block that is recomputed are
    /// noted when it is.
    pub(super) fn each_param(&self, mut each: impl FnMut(&Param)) {
        match self {
            Self::Embed(op) => each(op.table()),
            Self::Assemble(op) => op.params().for_each(each),
            Self::LayerNorm(op) => op.params().for_each(each),
            Self::Pattention(op) => op.params().for_each(each),
            Self::Linear(op) => op.params().for_each(each),
            Self::Loss(op) => op.params().for_each(each),
            Self::Select(_)
            | Self::Mean(_)
            | Self::Gelu(_)
            | Self::Rotate(_)
            | Self::Attention(_)
            | Self::Add(_)
            | Self::Block(_) => {}
        }
    }
}

/// A block of which only the input is kept.
pub(super) struct RecomputedBlock<'m> {
    pub(super) blocks: &'m dyn Blocks,
    pub(super) b: usize,
    pub(super) h: Tensor,
    pub(super) out: Var,
    pub(super) dropping: Option<DropPath>,
}

pub(super) struct Tape<'m> {
    pub(super) nodes: Vec<Node<'m>>,
    pub(super) gradients: &'m mut Gradients,
}

/// Lists that a step uses and the next one uses again, so that they are allocated once.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) nodes: Vec<Vec<Node<'static>>>,
    values: Vec<Vec<Option<SharedTemp>>>,
    ids: Vec<Vec<usize>>,
    pub(super) index: Vec<u32>,
    pub(super) numbers: Vec<f32>,
}

/// An empty list in the memory of `list`.
fn emptied<'b>(mut list: Vec<Node<'_>>) -> Vec<Node<'b>> {
    list.clear();
    // A map from a list to one of the same layout is collected where it is.
    list.into_iter()
        .map(|_| -> Node<'b> { unreachable!("the list is empty") })
        .collect()
}

pub(super) fn reborrow<'a>(
    finished: &'a mut Option<&mut dyn Finished>,
) -> Option<&'a mut dyn Finished> {
    match finished {
        Some(finished) => Some(&mut **finished),
        None => None,
    }
}

/// Walks back over the nodes, starting from the gradient of a value if one is given. Returns the gradient
/// of value 0.
pub(super) fn walk(
    device: &Arc<dyn Device>,
    gradients: &mut Gradients,
    mut nodes: Vec<Node<'_>>,
    vars: usize,
    from: Option<(Var, SharedTemp)>,
    mut finished: Option<&mut dyn Finished>,
) -> Result<Option<SharedTemp>> {
    let lists: &mut Lists = gradients.spare.get();
    let mut values = lists.values.pop().unwrap_or_default();
    let mut ids = lists.ids.pop().unwrap_or_default();
    values.resize(vars, None);
    if let Some((var, gradient)) = from {
        values[var] = Some(gradient);
    }
    let mut back = Backward {
        device,
        values,
        params: gradients,
        finished: reborrow(&mut finished),
    };
    while let Some(node) = nodes.pop() {
        ids.clear();
        node.each_param(|param| ids.push(param.id()));
        node.backward(&mut back)?;
        for &id in &ids {
            back.params.added(id, reborrow(&mut back.finished))?;
        }
    }
    let mut values = back.values;
    let first = values.first_mut().and_then(Option::take);
    values.clear();
    let lists: &mut Lists = gradients.spare.get();
    lists.values.push(values);
    lists.ids.push(ids);
    lists.nodes.push(emptied(nodes));
    Ok(first)
}

impl RecomputedBlock<'_> {
    /// Computes the block again, with a separate tape, and walks back over it.
    fn backward(mut self, back: &mut Backward<'_>) -> Result<()> {
        let (Some(dy), Some(input)) = (back.take(self.out), self.h.var) else {
            return Ok(());
        };
        let device = back.device;
        let mut g = Graph::training(device, back.params).recomputing(Recompute::Scores);
        g.dropping = self.dropping;
        self.h.var = Some(0);
        g.rec.vars = Some(1);
        // The operations of this second forward pass, which `g.rec` counts, are not those of the model.
        let out = match self.blocks.block(&mut g, self.b, self.h) {
            Ok(y) => y.var,
            Err(error::Error::Device(error)) => return Err(error),
            Err(error) => unreachable!("a block that has been computed before: {error}"),
        };
        let (Some(tape), Some(vars), Some(out)) = (g.tape, g.rec.vars, out) else {
            return Ok(());
        };
        let finished = reborrow(&mut back.finished);
        let from = Some((out, dy));
        match walk(device, tape.gradients, tape.nodes, vars, from, finished)? {
            Some(dx) => back.contribute(input, dx),
            None => Ok(()),
        }
    }
}
