//! A small tape: a model calls operations forward, and the tape replays them backward.
//!
//! In training, [`Graph`] notes each operation with what its backward pass needs; [`Graph::backward`]
//! walks the notes from the last to the first. In inference nothing is noted and memory is freed as the
//! model goes. A model is written once, forward only, and is the same code in both.

use crate::device::{
    AttentionShape, Buffer, Device, Kept, LossGradient, Result, RotaryTable, SegmentGradRef, Temp,
    Write,
};
use crate::param::{Affine, Gradients, Param};
use crate::site::Site;
use std::sync::Arc;

/// A value that flows through the network: `[rows, width]` numbers on a device.
///
/// Cloning is cheap, the numbers are shared.
#[derive(Clone, Debug)]
pub struct Tensor {
    data: Arc<Temp>,
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
    pub fn buffer(&self) -> &Temp {
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
}

struct Tape<'m> {
    nodes: Vec<Node<'m>>,
    vars: usize,
    gradients: &'m mut Gradients,
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
            nodes: Vec::new(),
            vars: 0,
            gradients,
        };
        Self {
            device: Arc::clone(device),
            tape: Some(tape),
        }
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
        data: Arc<Temp>,
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
        Ok(self.output(Arc::new(y), [tokens.len(), d], |_, out| {
            Some(Node::Embed {
                table,
                tokens: tokens.to_vec(),
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
        Ok(self.output(Arc::new(y), [rows, d], |y, out| {
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
        let mut saved = match self.tape {
            Some(_) => Some([
                self.temp(self.device.kept_len(rows * site.tokens()))?,
                self.temp(rows * site.groups())?,
            ]),
            None => None,
        };
        let dims = [rows, d_in, d_out];
        site.with_ref(|site| {
            let saved = saved
                .as_mut()
                .map(|[scores, stats]| [&mut **scores, &mut **stats]);
            self.device.pattention(site, &x.data, dims, &mut y, saved)
        })?;
        Ok(self.output(Arc::new(y), [rows, d_out], |_, out| {
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
        let mut out = Vec::with_capacity(N);
        if self.tape.is_some() {
            for site in sites {
                out.push(self.pattention(x, site)?);
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
            for y in ys {
                out.push(self.output(Arc::new(y), [rows, d_out], |_, _| None));
            }
        }
        match out.try_into() {
            Ok(out) => Ok(out),
            Err(_) => unreachable!("one output for each site"),
        }
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
        let buffers = [&**qkv[0].data, &**qkv[1].data, &**qkv[2].data];
        self.device
            .attention(shape, buffers, &mut o, lse.as_deref_mut())?;
        Ok(self.output(Arc::new(o), [rows, d], |o, _| {
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
        Ok(self.output(Arc::new(o), [rows, d], |_, _| None))
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
        Ok(self.output(Arc::new(y), [index.len(), d], |_, _| None))
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
        Ok(self.output(Arc::new(logits), [rows, v], |_, _| None))
    }

    /// Cross-entropy (nats) of each row against its target through the output head: `R` numbers. In
    /// training, the objective grows by `weight · Σ nll`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn cross_entropy(
        &mut self,
        h: &Tensor,
        table: &'m Param,
        scale: f32,
        targets: &[u32],
        weight: f32,
    ) -> Result<Vec<f32>> {
        let [rows, d] = h.shape();
        let mut nll = self.temp(rows)?;
        let mut dh = match self.tape {
            Some(_) => Some(self.temp(rows * d)?),
            None => None,
        };
        let gradient = match (&mut self.tape, &mut dh) {
            (Some(tape), Some(dh)) => Some(LossGradient {
                weight,
                dh,
                dtable: tape.gradients.get_mut(table),
            }),
            _ => None,
        };
        let hidden = &h.data;
        self.device
            .cross_entropy(hidden, table.value(), scale, targets, d, &mut nll, gradient)?;
        if let (Some(tape), Some(dh), Some(h)) = (&mut self.tape, dh, h.var) {
            tape.nodes.push(Node::CrossEntropy { h, dh });
        }
        let mut host = vec![0.0; rows];
        self.device.download(&nll, &mut host)?;
        Ok(host)
    }

    /// The same memory if this is its only user, else a copy.
    fn unshared(&self, mut data: Arc<Temp>) -> Result<Arc<Temp>> {
        if Arc::get_mut(&mut data).is_none() {
            let mut copy = self.temp(data.len())?;
            self.device.copy(&data, &mut copy)?;
            data = Arc::new(copy);
        }
        Ok(data)
    }

    /// Adds the gradients of everything noted to the gradients given at the start.
    ///
    /// # Errors
    /// If the device fails.
    pub fn backward(mut self) -> Result<()> {
        let Some(Tape {
            nodes,
            vars,
            gradients,
        }) = self.tape.take()
        else {
            return Ok(());
        };
        let mut back = Backward {
            graph: &self,
            grads: (0..vars).map(|_| None).collect(),
        };
        for node in nodes.into_iter().rev() {
            back.node(node, gradients)?;
        }
        Ok(())
    }
}

fn temp_mut(data: &mut Arc<Temp>) -> &mut Temp {
    Arc::get_mut(data).expect("`unshared` has just made this the only user")
}

/// The gradients of values during a walk back over the tape.
struct Backward<'a, 'm> {
    graph: &'a Graph<'m>,
    grads: Vec<Option<Arc<Temp>>>,
}

impl Backward<'_, '_> {
    fn device(&self) -> &dyn Device {
        &*self.graph.device
    }

    /// Lets `run` write the gradient of `var`, or add to it if there already is one.
    fn accumulate(
        &mut self,
        var: usize,
        len: usize,
        run: impl FnOnce(&Self, Write, &mut Temp) -> Result<()>,
    ) -> Result<()> {
        let (mut data, write) = match self.grads[var].take() {
            Some(data) => (self.graph.unshared(data)?, Write::Add),
            None => (Arc::new(self.graph.temp(len)?), Write::Replace),
        };
        run(self, write, temp_mut(&mut data))?;
        self.grads[var] = Some(data);
        Ok(())
    }

    /// Adds a finished gradient to that of `var`.
    fn contribute(&mut self, var: usize, grad: Arc<Temp>) -> Result<()> {
        if self.grads[var].is_none() {
            self.grads[var] = Some(grad);
            return Ok(());
        }
        self.accumulate(var, grad.len(), |back, _, to| back.device().add(&grad, to))
    }

    fn node(&mut self, node: Node<'_>, gradients: &mut Gradients) -> Result<()> {
        match node {
            Node::Embed { table, tokens, out } => {
                let (Some(dy), Some(to)) = (self.grads[out].take(), gradients.get_mut(table))
                else {
                    return Ok(());
                };
                self.device()
                    .embed_backward(&tokens, &dy, table.shape()[1], to)
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
                    && let Some([dgain, dbias]) = gradients.get_two_mut(gain, bias)
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
                let mut work = self.graph.temp(scores.len())?;
                self.accumulate(var, rows * d_in, |back, write, dx| {
                    let mut grads = gradients.get_segments_mut(site.segments());
                    let mut grads: Vec<SegmentGradRef<'_>> = grads
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
                })
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
                let mut dx = self.graph.unshared(dy)?;
                self.device()
                    .rotate(&table, dims, first, true, temp_mut(&mut dx))?;
                self.contribute(x, dx)
            }
            Node::Attention { qkv, o, lse, shape } => {
                let Some(d_o) = o.var.and_then(|out| self.grads[out].take()) else {
                    return Ok(());
                };
                let len = d_o.len();
                let mut grads = [
                    self.graph.temp(len)?,
                    self.graph.temp(len)?,
                    self.graph.temp(len)?,
                ];
                let [dq, dk, dv] = &mut grads;
                let buffers = [&**qkv[0].data, &**qkv[1].data, &**qkv[2].data];
                let to = [&mut **dq, &mut **dk, &mut **dv];
                self.device()
                    .attention_backward(shape, buffers, &o.data, &lse, &d_o, to)?;
                for (input, grad) in qkv.iter().zip(grads) {
                    if let Some(var) = input.var {
                        self.contribute(var, Arc::new(grad))?;
                    }
                }
                Ok(())
            }
            Node::Add { inputs, out } => {
                let Some(dy) = self.grads[out].take() else {
                    return Ok(());
                };
                self.contribute(inputs[0], Arc::clone(&dy))?;
                self.contribute(inputs[1], dy)
            }
            Node::CrossEntropy { h, dh } => self.contribute(h, Arc::new(dh)),
        }
    }
}
