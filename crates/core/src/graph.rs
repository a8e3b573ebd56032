//! A small tape: a model calls operations forward, and the tape replays them backward.
//!
//! In training, [`Graph`] notes each operation with what its backward pass needs; [`Graph::backward`]
//! walks the notes from the last to the first. In inference nothing is noted and memory is freed as the
//! model goes. A model is written once, forward only, and is the same code in both.

use crate::device::{
    AttentionShape, Buffer, Device, Kept, LossGradient, Result, RotaryTable, SegmentGradRef,
    SharedTemp, Temp, Write,
};
use crate::error;
use crate::memory::Memory;
use crate::param::{Affine, Gradients, Param};
use crate::site::Site;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// A value that flows through the network: `[rows, width]` numbers on a device.
///
/// Cloning is cheap, the numbers are shared.
#[derive(Clone, Debug)]
pub struct Tensor {
    data: SharedTemp,
    rows: usize,
    width: usize,
    /// Number on the tape that made it; `None` in inference.
    var: Option<usize>,
}

impl Tensor {
    /// `[rows, width]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.width]
    }

    /// Copies the numbers to the host.
    ///
    /// # Errors
    /// If the device fails.
    pub fn to_host(&self, device: &dyn Device) -> Result<Vec<f32>> {
        let mut host = vec![0.0; self.rows * self.width];
        device.download(&self.data, &mut host)?;
        Ok(host)
    }

    /// Copies the numbers to `host`, which has as many.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self, device: &dyn Device, host: &mut [f32]) -> Result<()> {
        device.download(&self.data, host)
    }

    /// The numbers on their device.
    pub fn buffer(&self) -> &Buffer {
        &self.data
    }
}

/// One noted operation. Inputs and outputs are tape numbers; the rest is what backward needs.
enum Node<'m> {
    Embed {
        table: &'m Param,
        tokens: Vec<u32>,
        out: usize,
    },
    LayerNorm {
        x: usize,
        out: usize,
        affine: Option<&'m Affine>,
        kept: Tensor,
        stats: Temp,
    },
    Pattention {
        x: Tensor,
        out: usize,
        site: &'m Site,
        scores: Temp,
        stats: Temp,
    },
    Rotate {
        x: usize,
        out: usize,
        table: Arc<RotaryTable>,
        dims: [usize; 3],
        first: usize,
    },
    Attention {
        qkv: [Tensor; 3],
        o: Tensor,
        lse: Temp,
        shape: AttentionShape,
    },
    Add {
        inputs: [usize; 2],
        out: usize,
    },
    CrossEntropy {
        h: usize,
        dh: Temp,
    },
    Again {
        parts: &'m dyn Again,
        part: usize,
        batch: usize,
        h: Tensor,
        out: usize,
    },
}

/// A network in parts that can be computed again: part number `part` maps `[B·T, D]` to `[B·T, D]`.
pub trait Again {
    /// The output of a part for its input `h`, with `batch` sequences.
    ///
    /// # Errors
    /// If the device fails.
    fn part<'m>(
        &'m self,
        g: &mut Graph<'m>,
        part: usize,
        batch: usize,
        h: Tensor,
    ) -> error::Result<Tensor>;
}

struct Tape<'m> {
    nodes: Vec<Node<'m>>,
    vars: usize,
    gradients: &'m mut Gradients,
    memory: Memory,
}

/// Lists that a step uses and the next one uses again, so that they are allocated once.
#[derive(Default)]
pub(crate) struct Workspace {
    nodes: Vec<Vec<Node<'static>>>,
    grads: Vec<Vec<Option<SharedTemp>>>,
    tokens: Vec<u32>,
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workspace")
    }
}

/// An empty list in the memory of `list`.
fn emptied<'b>(mut list: Vec<Node<'_>>) -> Vec<Node<'b>> {
    list.clear();
    // A map from a list to one of the same layout is collected where it is.
    list.into_iter()
        .map(|_| -> Node<'b> { unreachable!("the list is empty") })
        .collect()
}

/// The operations a model is written in, with or without a tape.
pub struct Graph<'m> {
    device: Arc<dyn Device>,
    tape: Option<Tape<'m>>,
}

impl<'m> Graph<'m> {
    /// A graph that only computes.
    pub fn inference(device: &Arc<dyn Device>) -> Self {
        Self {
            device: Arc::clone(device),
            tape: None,
        }
    }

    /// A graph that also notes what [`Graph::backward`] needs; gradients are added to `gradients`.
    pub fn training(device: &Arc<dyn Device>, gradients: &'m mut Gradients) -> Self {
        let tape = Tape {
            nodes: gradients.workspace.nodes.pop().unwrap_or_default(),
            vars: 0,
            gradients,
            memory: Memory::Speed,
        };
        Self {
            device: Arc::clone(device),
            tape: Some(tape),
        }
    }

    /// The same graph, with a tape that keeps what `memory` says.
    pub fn keeping(mut self, memory: Memory) -> Self {
        if let Some(tape) = &mut self.tape {
            tape.memory = memory;
        }
        self
    }

    /// What the tape keeps; `None` in inference.
    pub fn memory(&self) -> Option<Memory> {
        Some(self.tape.as_ref()?.memory)
    }

    /// The device that computes.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    fn temp(&self, len: usize) -> Result<Temp> {
        Temp::new(&self.device, len)
    }

    /// Wraps a result; in training it gets a number and `note` makes its node.
    fn output(
        &mut self,
        data: SharedTemp,
        [rows, width]: [usize; 2],
        note: impl FnOnce(&Tensor, usize) -> Option<Node<'m>>,
    ) -> Tensor {
        let var = self.tape.as_mut().map(|tape| {
            tape.vars += 1;
            tape.vars - 1
        });
        let tensor = Tensor {
            data,
            rows,
            width,
            var,
        };
        if let (Some(tape), Some(var)) = (&mut self.tape, var) {
            tape.nodes.extend(note(&tensor, var));
        }
        tensor
    }

    /// Rows `tokens` of `table` `[V, D]`: `[R, D]`.
    ///
    /// # Errors
    /// If the device fails, as for every operation below.
    pub fn embed(&mut self, table: &'m Param, tokens: &[u32]) -> Result<Tensor> {
        let d = table.shape()[1];
        let mut y = self.temp(tokens.len() * d)?;
        self.device.embed(table.value(), tokens, d, &mut y)?;
        let mut kept = Vec::new();
        if let Some(tape) = &mut self.tape {
            kept = std::mem::take(&mut tape.gradients.workspace.tokens);
            kept.clear();
            kept.extend_from_slice(tokens);
        }
        Ok(self.output(y.share(), [tokens.len(), d], |_, out| {
            Some(Node::Embed {
                table,
                tokens: kept,
                out,
            })
        }))
    }

    /// LayerNorm along the width, with gain and bias if there are any.
    ///
    /// # Errors
    /// If the device fails.
    pub fn layer_norm(
        &mut self,
        x: &Tensor,
        affine: Option<&'m Affine>,
        eps: f32,
    ) -> Result<Tensor> {
        let [rows, d] = x.shape();
        let (mut y, mut stats) = (self.temp(rows * d)?, self.temp(rows * 2)?);
        let buffers = affine.map(|a| [a.gain.value(), a.bias.value()]);
        self.device
            .layer_norm(&x.data, buffers, eps, d, &mut y, &mut stats)?;
        Ok(self.output(y.share(), [rows, d], |y, out| {
            // Without gain and bias the output is all that backward needs, and the input can be reused.
            let kept = if affine.is_some() { x } else { y }.clone();
            Some(Node::LayerNorm {
                x: x.var?,
                out,
                affine,
                kept,
                stats,
            })
        }))
    }

    /// `Θ(X·Kᵀ)·V` with the tokens of `site`: `[R, D_in]` → `[R, D_out]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn pattention(&mut self, x: &Tensor, site: &'m Site) -> Result<Tensor> {
        let [rows, d_in] = x.shape();
        let d_out = site.d_out();
        let mut y = self.temp(rows * d_out)?;
        let mut saved = match &self.tape {
            Some(tape) => {
                let keeps = tape.memory != Memory::Balanced;
                let scores = if keeps { rows * site.tokens() } else { 0 };
                let scores = self.device.kept_len(scores);
                Some([self.temp(scores)?, self.temp(rows * site.groups())?])
            }
            None => None,
        };
        let dims = [rows, d_in, d_out];
        site.with_ref(|site| {
            let saved = saved
                .as_mut()
                .map(|[scores, stats]| [&mut **scores, &mut **stats]);
            self.device.pattention(site, &x.data, dims, &mut y, saved)
        })?;
        Ok(self.output(y.share(), [rows, d_out], |_, out| {
            let [scores, stats] = saved?;
            Some(Node::Pattention {
                x: x.clone(),
                out,
                site,
                scores,
                stats,
            })
        }))
    }

    /// [`Graph::pattention`] of one input at several sites of one shape.
    ///
    /// # Errors
    /// If the device fails.
    pub fn pattention_group<const N: usize>(
        &mut self,
        x: &Tensor,
        sites: [&'m Site; N],
    ) -> Result<[Tensor; N]> {
        let mut out = [const { None }; N];
        if self.tape.is_some() {
            for (out, site) in out.iter_mut().zip(sites) {
                *out = Some(self.pattention(x, site)?);
            }
        } else {
            let ([rows, d_in], d_out) = (x.shape(), sites[0].d_out());
            let mut ys = Vec::with_capacity(N);
            for _ in sites {
                ys.push(self.temp(rows * d_out)?);
            }
            let segments = sites.map(Site::segment_refs);
            let refs: Vec<_> = (sites.iter().zip(&segments))
                .map(|(site, segments)| site.site_ref(segments))
                .collect();
            let mut buffers: Vec<&mut Buffer> = ys.iter_mut().map(|y| &mut **y).collect();
            let dims = [rows, d_in, d_out];
            (self.device).pattention_group(&refs, &x.data, dims, &mut buffers)?;
            for (out, y) in out.iter_mut().zip(ys) {
                *out = Some(self.output(y.share(), [rows, d_out], |_, _| None));
            }
        }
        // Either branch has gone through all N sites.
        Ok(out.map(|y| y.expect("one output for each site")))
    }

    /// Rotary embedding of `[B·T, H·C]`; `dims` is `[T, H, C]`, the first row stands at position `first`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn rotate(
        &mut self,
        x: Tensor,
        table: &Arc<RotaryTable>,
        dims: [usize; 3],
        first: usize,
    ) -> Result<Tensor> {
        let (shape, var) = (x.shape(), x.var);
        let mut data = self.unshared(x.data)?;
        self.device
            .rotate(table, dims, first, false, temp_mut(&mut data))?;
        Ok(self.output(data, shape, |_, out| {
            Some(Node::Rotate {
                x: var?,
                out,
                table: Arc::clone(table),
                dims,
                first,
            })
        }))
    }

    /// Multi-head softmax attention between the tokens of each sequence.
    ///
    /// # Errors
    /// If the device fails.
    pub fn attention(&mut self, shape: AttentionShape, qkv: [Tensor; 3]) -> Result<Tensor> {
        let [rows, d] = qkv[0].shape();
        let mut o = self.temp(rows * d)?;
        let mut lse = match self.tape {
            Some(_) => Some(self.temp(shape.stats_len())?),
            None => None,
        };
        let buffers = [&*qkv[0].data, &*qkv[1].data, &*qkv[2].data];
        self.device
            .attention(shape, buffers, &mut o, lse.as_deref_mut())?;
        Ok(self.output(o.share(), [rows, d], |o, _| {
            Some(Node::Attention {
                qkv,
                o: o.clone(),
                lse: lse?,
                shape,
            })
        }))
    }

    /// Attention of new queries to a cache of keys and values, into which the new ones are stored first.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// In a training graph: a cache has no gradient.
    pub fn attention_cached(
        &mut self,
        shape: AttentionShape,
        [q, k, v]: [Tensor; 3],
        cache: &mut [Temp; 2],
    ) -> Result<Tensor> {
        assert!(self.tape.is_none(), "a cache is used in inference only");
        let [rows, d] = q.shape();
        let at = shape.keys - shape.queries;
        let dims = [shape.batch, shape.queries, d];
        let [keys, values] = cache;
        self.device
            .store_rows(&k.data, dims, at, shape.key_stride, keys)?;
        self.device
            .store_rows(&v.data, dims, at, shape.key_stride, values)?;
        let mut o = self.temp(rows * d)?;
        self.device
            .attention(shape, [&q.data, keys, values], &mut o, None)?;
        Ok(self.output(o.share(), [rows, d], |_, _| None))
    }

    /// `a + b`, in the memory of `a` if nothing else needs it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn add(&mut self, a: Tensor, b: &Tensor) -> Result<Tensor> {
        let (shape, var) = (a.shape(), a.var);
        let mut data = self.unshared(a.data)?;
        self.device.add(&b.data, temp_mut(&mut data))?;
        Ok(self.output(data, shape, |_, out| {
            Some(Node::Add {
                inputs: [var?, b.var?],
                out,
            })
        }))
    }

    /// Rows `index` of `x`, in inference: `[index.len(), D]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn select_rows(&mut self, x: &Tensor, index: &[u32]) -> Result<Tensor> {
        assert!(self.tape.is_none(), "rows are selected in inference only");
        let d = x.width;
        let mut y = self.temp(index.len() * d)?;
        self.device.embed(&x.data, index, d, &mut y)?;
        Ok(self.output(y.share(), [index.len(), d], |_, _| None))
    }

    /// `scale · h·tableᵀ`: `[R, D]` → `[R, V]`, in inference.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits(&mut self, h: &Tensor, table: &'m Param, scale: f32) -> Result<Tensor> {
        let ([rows, d], v) = (h.shape(), table.shape()[0]);
        let mut logits = self.temp(rows * v)?;
        self.device
            .logits(&h.data, table.value(), scale, d, &mut logits)?;
        Ok(self.output(logits.share(), [rows, v], |_, _| None))
    }

    /// Cross-entropy (nats) of each row against its target through the output head: `R` numbers, written
    /// to `nll`. In training, the objective grows by `weight · Σ nll`.
    ///
    /// # Errors
    /// If the device fails.
    #[allow(clippy::too_many_arguments)]
    pub fn cross_entropy(
        &mut self,
        h: &Tensor,
        table: &'m Param,
        scale: f32,
        targets: &[u32],
        weight: f32,
        nll: &mut Vec<f32>,
    ) -> Result<()> {
        let [rows, d] = h.shape();
        let mut losses = self.temp(rows)?;
        let mut dh = match self.tape {
            Some(_) => Some(self.temp(rows * d)?),
            None => None,
        };
        let gradient = match (&mut self.tape, &mut dh) {
            (Some(tape), Some(dh)) => Some(LossGradient {
                weight,
                dh,
                dtable: tape.gradients.get_mut(table)?,
            }),
            _ => None,
        };
        let (hidden, table) = (&h.data, table.value());
        self.device
            .cross_entropy(hidden, table, scale, targets, d, &mut losses, gradient)?;
        if let (Some(tape), Some(dh), Some(h)) = (&mut self.tape, dh, h.var) {
            tape.nodes.push(Node::CrossEntropy { h, dh });
        }
        nll.resize(rows, 0.0);
        self.device.download(&losses, nll)
    }

    /// Part `part` of `parts` for the input `h`: on the tape it is one operation, of which only the input is
    /// kept; the backward pass computes the rest again.
    ///
    /// # Errors
    /// If the device fails.
    pub fn again(
        &mut self,
        parts: &'m dyn Again,
        part: usize,
        batch: usize,
        h: Tensor,
    ) -> error::Result<Tensor> {
        let tape = self.tape.take();
        let y = parts.part(self, part, batch, h.clone());
        self.tape = tape;
        let Tensor {
            data, rows, width, ..
        } = y?;
        Ok(self.output(data, [rows, width], |_, out| {
            Some(Node::Again {
                parts,
                part,
                batch,
                h,
                out,
            })
        }))
    }

    /// The same memory if this is its only user, else a copy.
    fn unshared(&self, data: SharedTemp) -> Result<SharedTemp> {
        unshared(&self.device, data)
    }

    /// Adds the gradients of everything noted to the gradients given at the start.
    ///
    /// # Errors
    /// If the device fails.
    pub fn backward(self) -> Result<()> {
        if let Some(tape) = self.tape {
            let gradients = tape.walk(&self.device, None)?.1;
            gradients.hold_all()?;
        }
        Ok(())
    }
}

impl<'m> Tape<'m> {
    /// Walks back over the nodes, starting from the gradient of a value if one is given. Returns the gradient
    /// of value 0.
    fn walk(
        mut self,
        device: &Arc<dyn Device>,
        from: Option<(usize, SharedTemp)>,
    ) -> Result<(Option<SharedTemp>, &'m mut Gradients)> {
        let gradients = self.gradients;
        let mut grads = gradients.workspace.grads.pop().unwrap_or_default();
        grads.resize(self.vars, None);
        if let Some((var, gradient)) = from {
            grads[var] = Some(gradient);
        }
        let mut back = Backward { device, grads };
        while let Some(node) = self.nodes.pop() {
            back.node(node, gradients)?;
        }
        let mut grads = back.grads;
        let first = grads.first_mut().and_then(Option::take);
        grads.clear();
        gradients.workspace.grads.push(grads);
        gradients.workspace.nodes.push(emptied(self.nodes));
        Ok((first, gradients))
    }
}

/// Computes a part again, with a tape, and walks back over it from the gradient `dy` of its output: the
/// gradient of its input.
fn again_backward(
    device: &Arc<dyn Device>,
    parts: &dyn Again,
    [part, batch]: [usize; 2],
    mut h: Tensor,
    dy: SharedTemp,
    gradients: &mut Gradients,
) -> Result<Option<SharedTemp>> {
    let mut g = Graph::training(device, gradients).keeping(Memory::Balanced);
    if let Some(tape) = &mut g.tape {
        h.var = Some(0);
        tape.vars = 1;
    }
    let y = parts.part(&mut g, part, batch, h);
    let out = match y {
        Ok(Tensor { var, .. }) => var,
        Err(error::Error::Device(error)) => return Err(error),
        Err(error) => unreachable!("a part that has been computed before: {error}"),
    };
    match (g.tape, out) {
        (Some(tape), Some(out)) => Ok(tape.walk(device, Some((out, dy)))?.0),
        _ => Ok(None),
    }
}

fn unshared(device: &Arc<dyn Device>, mut data: SharedTemp) -> Result<SharedTemp> {
    if data.unique().is_none() {
        let mut copy = Temp::new(device, data.len())?;
        device.copy(&data, &mut copy)?;
        data = copy.share();
    }
    Ok(data)
}

fn temp_mut(data: &mut SharedTemp) -> &mut Temp {
    // Called on what `unshared` returns alone, and the walk has one thread.
    data.unique()
        .expect("`unshared` has just made this the only user")
}

/// The gradients of values during a walk back over the tape.
struct Backward<'a> {
    device: &'a Arc<dyn Device>,
    grads: Vec<Option<SharedTemp>>,
}

impl Backward<'_> {
    fn device(&self) -> &dyn Device {
        &**self.device
    }

    fn temp(&self, len: usize) -> Result<Temp> {
        Temp::new(self.device, len)
    }

    /// Lets `run` write the gradient of `var`, or add to it if there already is one.
    fn accumulate(
        &mut self,
        var: usize,
        len: usize,
        run: impl FnOnce(&Self, Write, &mut Temp) -> Result<()>,
    ) -> Result<()> {
        let (mut data, write) = match self.grads[var].take() {
            Some(data) => (unshared(self.device, data)?, Write::Add),
            None => (self.temp(len)?.share(), Write::Replace),
        };
        run(self, write, temp_mut(&mut data))?;
        self.grads[var] = Some(data);
        Ok(())
    }

    /// Adds a finished gradient to that of `var`.
    fn contribute(&mut self, var: usize, grad: SharedTemp) -> Result<()> {
        if self.grads[var].is_none() {
            self.grads[var] = Some(grad);
            return Ok(());
        }
        self.accumulate(var, grad.len(), |back, _, to| back.device().add(&grad, to))
    }

    fn node(&mut self, node: Node<'_>, gradients: &mut Gradients) -> Result<()> {
        match node {
            Node::Embed { table, tokens, out } => {
                if let (Some(dy), Some(to)) = (self.grads[out].take(), gradients.get_mut(table)?) {
                    self.device()
                        .embed_backward(&tokens, &dy, table.shape()[1], to)?;
                }
                gradients.workspace.tokens = tokens;
                Ok(())
            }
            Node::LayerNorm {
                x,
                out,
                affine,
                kept,
                stats,
            } => {
                let Some(dy) = self.grads[out].take() else {
                    return Ok(());
                };
                let [rows, d] = kept.shape();
                let gain = affine.map(|a| a.gain.value());
                if let Some(Affine { gain, bias }) = affine
                    && let Some([dgain, dbias]) = gradients.get_two_mut(gain, bias)?
                {
                    let device = self.device();
                    device.layer_norm_backward_affine(&kept.data, &stats, &dy, dgain, dbias)?;
                }
                self.accumulate(x, rows * d, |back, write, dx| {
                    let kept = match affine {
                        Some(_) => Kept::Input(&kept.data),
                        None => Kept::Output(&kept.data),
                    };
                    back.device()
                        .layer_norm_backward(kept, &stats, gain, &dy, d, write, dx)
                })
            }
            Node::Pattention {
                x,
                out,
                site,
                mut scores,
                mut stats,
            } => {
                let (Some(dy), Some(var)) = (self.grads[out].take(), x.var) else {
                    return Ok(());
                };
                let [rows, d_in] = x.shape();
                let dims = [rows, d_in, site.d_out()];
                let all = self.device().kept_len(rows * site.tokens());
                if scores.len() < all {
                    scores = self.temp(all)?;
                    site.with_ref(|site| {
                        let to = &mut scores;
                        self.device()
                            .pattention_scores(site, &x.data, [rows, d_in], to)
                    })?;
                }
                let mut work = self.temp(all)?;
                let mut held = gradients.take_segments(site.segments())?;
                self.accumulate(var, rows * d_in, |back, write, dx| {
                    let mut grads: SmallVec<[SegmentGradRef<'_>; 8]> = held
                        .iter_mut()
                        .map(|g| g.as_mut().map(|[k, v]| [&mut **k, &mut **v]))
                        .collect();
                    site.with_ref(|site| {
                        let saved = [&mut *scores, &mut *stats];
                        let dx = Some((write, &mut **dx));
                        back.device().pattention_backward(
                            site, &x.data, &dy, dims, saved, &mut work, dx, &mut grads,
                        )
                    })
                })?;
                gradients.give_segments(site.segments(), held);
                Ok(())
            }
            Node::Rotate {
                x,
                out,
                table,
                dims,
                first,
            } => {
                let Some(dy) = self.grads[out].take() else {
                    return Ok(());
                };
                let mut dx = unshared(self.device, dy)?;
                self.device()
                    .rotate(&table, dims, first, true, temp_mut(&mut dx))?;
                self.contribute(x, dx)
            }
            Node::Attention { qkv, o, lse, shape } => {
                let Some(d_o) = o.var.and_then(|out| self.grads[out].take()) else {
                    return Ok(());
                };
                let len = d_o.len();
                let mut grads = [self.temp(len)?, self.temp(len)?, self.temp(len)?];
                let [dq, dk, dv] = &mut grads;
                let buffers = [&*qkv[0].data, &*qkv[1].data, &*qkv[2].data];
                let to = [&mut **dq, &mut **dk, &mut **dv];
                self.device()
                    .attention_backward(shape, buffers, &o.data, &lse, &d_o, to)?;
                for (input, grad) in qkv.iter().zip(grads) {
                    if let Some(var) = input.var {
                        self.contribute(var, grad.share())?;
                    }
                }
                Ok(())
            }
            Node::Add { inputs, out } => {
                let Some(dy) = self.grads[out].take() else {
                    return Ok(());
                };
                self.contribute(inputs[0], dy.clone())?;
                self.contribute(inputs[1], dy)
            }
            Node::CrossEntropy { h, dh } => self.contribute(h, dh.share()),
            Node::Again {
                parts,
                part,
                batch,
                h,
                out,
            } => {
                let (Some(dy), Some(var)) = (self.grads[out].take(), h.var) else {
                    return Ok(());
                };
                match again_backward(self.device, parts, [part, batch], h, dy, gradients)? {
                    Some(dx) => self.contribute(var, dx),
                    None => Ok(()),
                }
            }
        }
    }
}
