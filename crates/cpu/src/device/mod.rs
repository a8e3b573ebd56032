//! The CPU as a device: its memory, and the kernels that its operations call.
//!
//! It is the one implementation of the trait, with a short method for every operation.

mod site;
mod storage;
#[cfg(test)]
mod tests;

use crate::arena::{OutOfMemory, Zeroed};
use crate::gemm::{self, Bf16, Mat, MatMut, PackedWeights};
use crate::{
    Arena, Exec, Pool, Scratch, adamw, attention, cross_entropy, elementwise, layer_norm, rotary,
    rows, simd,
};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use storage::{Backing, Form, Numbers, Packed};
use storage::{
    floats, floats_mut, halves, halves_mut, indices, indices_mut, packed, sums, sums_mut,
};
use tokenformer_device::{
    Adam, AdamStep, AttentionDims, Buffer, CachedSequence, Device, DeviceError, FusedSite, Handles,
    Head, KeptForNorm, LossGradient, Matmul, Operand, Output, PackedMatrix, Precision, Result,
    Role, RotaryDims, RotaryTable, RowsToStore, SiteRef, Targets, ThetaInParts, Usage,
    WeightFormat, Write,
};

/// The processor. Results have the same bits for any number of threads.
///
/// In [`Precision::Bf16`] the factors of the large products (Pattention, linear layers, output head) and the scores
/// that are stored for the backward pass are rounded to bfloat16; sums, norms, attention between tokens, parameters,
/// gradients and the optimizer stay in f32.
pub struct Cpu {
    precision: Precision,
    threads: Pool,
    scratch: Mutex<Scratch>,
    /// Memory of temporaries and kernels.
    arena: Arc<Arena>,
    handles: Handles,
    /// Floats of long-lived buffers.
    persistent: Arc<AtomicUsize>,
    is_dry_run: bool,
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Runs `$run` with `$P` as the type of the factors of the device's products.
macro_rules! in_precision {
    ($device:expr, $P:ident => $run:expr) => {
        match $device.precision {
            Precision::F32 => {
                type $P = f32;
                $run
            }
            Precision::Bf16 => {
                type $P = Bf16;
                $run
            }
        }
    };
}
use in_precision;

impl Cpu {
    /// A device that computes in f32 on `threads` threads; `None` for one per available core.
    pub fn new(threads: Option<usize>) -> Arc<Self> {
        Self::with_precision(threads, Precision::F32)
    }

    /// As [`Cpu::new`], in the precision given.
    pub fn with_precision(threads: Option<usize>, precision: Precision) -> Arc<Self> {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self::with(
            threads.unwrap_or_else(available),
            precision,
            false,
        ))
    }

    fn with(threads: usize, precision: Precision, is_dry_run: bool) -> Self {
        let arena: Arc<Arena> = Arc::default();
        let scratch = match is_dry_run {
            true => Scratch::dry_run(Arc::clone(&arena)),
            false => Scratch::new(Arc::clone(&arena)),
        };
        Self {
            precision,
            threads: Pool::new(threads),
            scratch: Mutex::new(scratch),
            arena,
            handles: Handles::default(),
            persistent: Arc::default(),
            is_dry_run,
        }
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.threads.threads()
    }

    /// The precision of products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    fn out_of_memory(needed: OutOfMemory) -> DeviceError {
        DeviceError::OutOfMemory {
            device: "cpu".into(),
            needed_bytes: needed.bytes,
        }
    }

    /// The form of a buffer of a role, and memory for `len` numbers from `take`.
    fn memory<T>(
        &self,
        len: usize,
        role: Role,
        take: impl FnOnce(usize) -> Option<T>,
    ) -> Result<(Form, T)> {
        let form = Form::of(role);
        let size = in_precision!(self, P => form.floats::<P>(len));
        let memory = take(size).ok_or_else(|| Self::out_of_memory(OutOfMemory::of_floats(size)))?;
        Ok((form, memory))
    }

    /// Runs kernels. A kernel without scratch memory unwinds before its first task, so no output is partly computed.
    fn exec<T>(&self, run: impl FnOnce(&mut Exec<'_>) -> T) -> Result<T> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut exec = Exec {
            pool: &self.threads,
            scratch: &mut scratch,
        };
        catch_unwind(AssertUnwindSafe(|| run(&mut exec))).map_err(|payload| {
            match payload.downcast::<OutOfMemory>() {
                Ok(short) => Self::out_of_memory(*short),
                Err(panic) => resume_unwind(panic),
            }
        })
    }
}

/// The matrix of an operand, with its `[rows, cols]` after transposition.
fn matrix<'a>(operand: Operand<'a>, [rows, cols]: [usize; 2]) -> Mat<'a> {
    let numbers = &floats(operand.buffer)[operand.offset..];
    match operand.transposed {
        false => Mat::strided(numbers, rows, cols, operand.row_stride),
        true => Mat::strided(numbers, cols, rows, operand.row_stride).t(),
    }
}

impl Device for Cpu {
    fn describe(&self) -> String {
        format!(
            "cpu, {}, {} threads, {}",
            self.precision,
            self.threads(),
            simd::level().name()
        )
    }

    fn handles(&self) -> &Handles {
        &self.handles
    }

    fn alloc(&self, len: usize, role: Role) -> Result<Buffer> {
        let (form, zeroed) = self.memory(len, role, Zeroed::new)?;
        let numbers = Numbers::own(Backing::Zeroed(zeroed), form, &self.persistent);
        Ok(Buffer::new(numbers, len))
    }

    fn alloc_from(&self, numbers: Vec<f32>, role: Role) -> Result<Buffer> {
        let (form, len) = (Form::of(role), numbers.len());
        assert_eq!(form, Form::F32, "the host's numbers are f32");
        let numbers = Numbers::own(Backing::List(numbers), form, &self.persistent);
        Ok(Buffer::new(numbers, len))
    }

    fn temporary(&self, len: usize, role: Role, buffer: &mut Buffer) -> Result<()> {
        let (form, region) = self.memory(len, role, |size| self.arena.take(size))?;
        buffer.refill(Numbers::temporary(region, form), len);
        Ok(())
    }

    fn release(&self, buffer: &mut Buffer) {
        buffer.refill(Numbers::released(), 0);
    }

    fn trim(&self) {
        self.arena.clear();
    }

    fn usage(&self) -> Usage {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let arena = self.arena.usage();
        Usage {
            persistent: self.persistent.load(Ordering::Relaxed) * size_of::<f32>(),
            temporary: arena.in_use,
            temporary_reserved: arena.touched,
            scratch: scratch.bytes(),
        }
    }

    fn dry_run(&self) -> Result<Arc<dyn Device>> {
        Ok(Arc::new(Self::with(self.threads(), self.precision, true)))
    }

    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()> {
        if self.is_dry_run {
            return Ok(());
        }
        match halves(to) {
            Some(_) => gemm::round_to_bf16(halves_mut(to), from),
            None => floats_mut(to).copy_from_slice(from),
        }
        Ok(())
    }

    fn write_indices(&self, from: &[u32], to: &mut Buffer) -> Result<()> {
        if !self.is_dry_run {
            indices_mut(to).copy_from_slice(from);
        }
        Ok(())
    }

    fn read_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()> {
        match packed(from) {
            _ if self.is_dry_run => to.fill(0.0),
            None => match halves(from) {
                Some(from) => gemm::widen_bf16(to, &from[start..start + to.len()]),
                None => to.copy_from_slice(&floats(from)[start..start + to.len()]),
            },
            Some(matrix) => self.exec(|exec| {
                let [k, _] = matrix.weights.shape();
                matrix.widen(start, to, &mut exec.scratch.take_shared(k));
            })?,
        }
        Ok(())
    }

    fn read_accumulator(&self, from: &Buffer, to: &mut [f64]) -> Result<()> {
        to.copy_from_slice(sums(from));
        Ok(())
    }

    fn zero(&self, buffer: &mut Buffer) -> Result<()> {
        if !self.is_dry_run {
            // Zero has the same bits in every form.
            buffer.storage_mut::<Numbers>().memory_mut().fill(0.0);
        }
        Ok(())
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        let (from, to) = (from.storage::<Numbers>(), to.storage_mut::<Numbers>());
        assert_eq!(from.form(), to.form(), "numbers are copied as they are");
        if !self.is_dry_run {
            to.memory_mut().copy_from_slice(from.memory());
        }
        Ok(())
    }

    fn pack_weights(
        &self,
        weights: Buffer,
        matrix: PackedMatrix,
        format: WeightFormat,
    ) -> Result<Buffer> {
        let right = Mat::new(floats(&weights), matrix.rows, matrix.cols);
        let right = if matrix.transposed { right.t() } else { right };
        let packed = Packed {
            weights: self.exec(|exec| PackedWeights::new(exec, format, right))?,
            matrix,
        };
        Ok(Buffer::new(packed, weights.len()))
    }

    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.exec(|exec| elementwise::add(exec, floats_mut(y), floats(x)))
    }

    fn add_to_rows(&self, bias: &Buffer, y: &mut Buffer) -> Result<()> {
        self.exec(|exec| elementwise::add_to_rows(exec, floats_mut(y), floats(bias)))
    }

    fn sum_rows(&self, dy: &Buffer, d_bias: &mut Buffer) -> Result<()> {
        self.exec(|exec| elementwise::sum_rows(exec, floats_mut(d_bias), floats(dy)))
    }

    fn scale_rows(&self, x: &Buffer, factors: &Buffer, write: Write, y: &mut Buffer) -> Result<()> {
        let (x, factors) = (floats(x), floats(factors));
        self.exec(|exec| elementwise::scale_rows(exec, floats_mut(y), x, factors, write))
    }

    fn matmul(&self, product: Matmul<'_>, write: Write, c: Output<'_>) -> Result<()> {
        let Matmul {
            a,
            b,
            rows,
            inner,
            cols,
            scale,
        } = product;
        let (to, c_stride) = (&mut floats_mut(c.buffer)[c.offset..], c.row_stride);
        let a = matrix(a, [rows, inner]);
        if let Some(weights) = packed(b.buffer) {
            let is_whole = b.offset == 0 && b.row_stride == weights.matrix.cols;
            assert!(
                is_whole && b.transposed == weights.matrix.transposed,
                "packed weights are multiplied with whole, as they were packed"
            );
            assert_eq!(weights.weights.shape(), [inner, cols]);
            let job = gemm::Job {
                y: to,
                y_stride: c_stride,
                write,
                x: a,
                weights: &weights.weights,
                scale,
            };
            return self.exec(|exec| gemm::par_products(exec, &mut [job]));
        }
        let b = matrix(b, [inner, cols]);
        self.exec(|exec| {
            in_precision!(self, P => {
                let c = MatMut::strided(to, rows, cols, c_stride);
                gemm::par_matmul::<P>(exec, c, write, a, b, scale);
            });
        })
    }

    fn gelu(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.exec(|exec| elementwise::gelu(exec, floats_mut(y), floats(x)))
    }

    fn gelu_backward(&self, x: &Buffer, dy: &Buffer, dx: &mut Buffer) -> Result<()> {
        self.exec(|exec| elementwise::gelu_backward(exec, floats_mut(dx), floats(x), floats(dy)))
    }

    fn theta(&self, site: &SiteRef<'_>, scores: &mut Buffer, stats: &mut Buffer) -> Result<()> {
        self.theta_rows(site, scores, stats)
    }

    fn theta_backward(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        stats: &Buffer,
        d_scores: &mut Buffer,
    ) -> Result<()> {
        self.theta_rows_backward(site, scores, stats, d_scores)
    }

    fn gather_rows(
        &self,
        table: &Buffer,
        index: &Buffer,
        width: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        if let Some(table) = packed(table) {
            assert!(table.matrix.transposed, "rows are columns of the factor");
            if !self.is_dry_run {
                let rows = floats_mut(y).chunks_exact_mut(width).zip(indices(index));
                rows.for_each(|(y, &row)| table.weights.column(row as usize, y));
            }
            return Ok(());
        }
        let (table, index) = (floats(table), indices(index));
        self.exec(|exec| rows::gather(exec, table, index, floats_mut(y), width))
    }

    fn scatter_add_rows(
        &self,
        index: &Buffer,
        dy: &Buffer,
        width: usize,
        d_table: &mut Buffer,
    ) -> Result<()> {
        let (index, dy) = (indices(index), floats(dy));
        self.exec(|exec| rows::scatter_add(exec, floats_mut(d_table), index, dy, width))
    }

    fn layer_norm(
        &self,
        x: &Buffer,
        affine: Option<[&Buffer; 2]>,
        eps: f32,
        width: usize,
        y: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()> {
        let affine = affine.map(|[gain, bias]| layer_norm::Affine {
            gain: floats(gain),
            bias: floats(bias),
        });
        let (y, stats) = (floats_mut(y), floats_mut(stats));
        self.exec(|exec| layer_norm::forward(exec, floats(x), affine, eps, y, stats, width))
    }

    fn layer_norm_backward(
        &self,
        kept: KeptForNorm<'_>,
        stats: &Buffer,
        gain: Option<&Buffer>,
        dy: &Buffer,
        width: usize,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()> {
        let kept = match kept {
            KeptForNorm::Output(y) => layer_norm::Kept::Output(floats(y)),
            KeptForNorm::Input(x) => layer_norm::Kept::Input(floats(x)),
        };
        let dx = (floats_mut(dx), write);
        let (stats, gain, dy) = (floats(stats), gain.map(floats), floats(dy));
        self.exec(|exec| layer_norm::backward(exec, kept, stats, gain, dy, dx, width))
    }

    fn layer_norm_backward_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        d_gain: &mut Buffer,
        d_bias: &mut Buffer,
    ) -> Result<()> {
        let (x, stats, dy) = (floats(x), floats(stats), floats(dy));
        let (d_gain, d_bias) = (floats_mut(d_gain), floats_mut(d_bias));
        self.exec(|exec| layer_norm::backward_affine(exec, x, stats, dy, d_gain, d_bias))
    }

    fn rotate(
        &self,
        table: &RotaryTable,
        dims: RotaryDims,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()> {
        let table = rotary::Table {
            dims: table.dims,
            cos: floats(&table.cos),
            sin: floats(&table.sin),
        };
        self.exec(|exec| rotary::rotate(exec, floats_mut(x), table, dims, inverse))
    }

    fn attention(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        log_sums: Option<&mut Buffer>,
    ) -> Result<()> {
        let (o, log_sums) = (floats_mut(o), log_sums.map(floats_mut));
        self.exec(|exec| attention::forward(exec, dims, qkv.map(floats), o, log_sums))
    }

    fn attention_each(
        &self,
        heads: usize,
        qkv: [&Buffer; 3],
        sequences: &mut [CachedSequence<'_>],
        o: &mut Buffer,
    ) -> Result<()> {
        let [q, k, v] = qkv.map(floats);
        let rows: usize = sequences.iter().map(|s| s.queries).sum();
        let (width, mut at) = (o.len() / rows.max(1), 0);
        let mut parts = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let dims = sequence.dims(heads, width / heads);
            let new = at..at + sequence.queries * width;
            at = new.end;
            if !self.is_dry_run {
                let stored = sequence.seen * width..dims.keys * width;
                for (from, cache) in [k, v].into_iter().zip(&mut sequence.cache) {
                    floats_mut(cache)[stored.clone()].copy_from_slice(&from[new.clone()]);
                }
            }
            let [keys, values] = &sequence.cache;
            parts.push((dims, [&q[new], floats(keys), floats(values)]));
        }
        self.exec(|exec| attention::forward_each(exec, &parts, floats_mut(o)))
    }

    fn attention_backward(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &Buffer,
        log_sums: &Buffer,
        d_o: &Buffer,
        d_qkv: [&mut Buffer; 3],
    ) -> Result<()> {
        let (qkv, d_qkv) = (qkv.map(floats), d_qkv.map(floats_mut));
        let (o, log_sums, d_o) = (floats(o), floats(log_sums), floats(d_o));
        self.exec(|exec| attention::backward(exec, dims, qkv, o, log_sums, d_o, d_qkv))
    }

    fn store_rows(&self, rows: &Buffer, dims: RowsToStore, cache: &mut Buffer) -> Result<()> {
        if self.is_dry_run {
            return Ok(());
        }
        let len = dims.length * dims.width;
        let (rows, cache) = (floats(rows), floats_mut(cache));
        for (i, rows) in rows.chunks_exact(len).take(dims.batch).enumerate() {
            let to = (i * dims.capacity + dims.at) * dims.width;
            cache[to..to + len].copy_from_slice(rows);
        }
        Ok(())
    }

    fn loss(
        &self,
        head: Head<'_>,
        targets: Targets<'_>,
        losses: &mut Buffer,
        gradient: Option<LossGradient<'_>>,
    ) -> Result<()> {
        let (hidden, losses) = (floats(head.hidden), floats_mut(losses));
        let targets = match targets {
            Targets::Classes(classes) => cross_entropy::Targets::Classes(indices(classes)),
            Targets::Soft(weights) => cross_entropy::Targets::Soft(floats(weights)),
        };
        if let Some(table) = packed(head.table) {
            assert!(gradient.is_none(), "packed weights have no gradient");
            let (table, bias, scale) = (&table.weights, head.bias.map(floats), head.scale);
            return self.exec(|exec| {
                cross_entropy::losses_packed(exec, hidden, table, bias, scale, targets, losses);
            });
        }
        let gradient = gradient.map(|g| cross_entropy::Gradient {
            weight: g.weight,
            dh: floats_mut(g.d_hidden),
            dtable: g.d_table.map(floats_mut),
            dbias: g.d_bias.map(floats_mut),
        });
        let head = cross_entropy::Head {
            hidden,
            table: floats(head.table),
            bias: head.bias.map(floats),
            scale: head.scale,
            width: head.width,
        };
        self.exec(|exec| {
            in_precision!(self, P => {
                cross_entropy::forward::<P>(exec, head, targets, losses, gradient);
            });
        })
    }

    fn sum_of_squares(&self, x: &Buffer, sums: &mut Buffer, group: usize) -> Result<()> {
        let more = self.exec(|exec| elementwise::sum_of_squares(exec, floats(x)))?;
        if !self.is_dry_run {
            sums_mut(sums)[group] += more;
        }
        Ok(())
    }

    fn clip_factors(&self, squares: &Buffer, limit: f64, factors: &mut Buffer) -> Result<()> {
        if self.is_dry_run {
            return Ok(());
        }
        tokenformer_device::clip_factors(sums(squares), limit, floats_mut(factors));
        Ok(())
    }

    fn adamw(
        &self,
        step: AdamStep<'_>,
        p: &mut Buffer,
        g: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
    ) -> Result<()> {
        let first = step.slot * Adam::SCALARS;
        let numbers = floats(step.scalars)[first..].first_chunk();
        let scalars = *numbers.expect("each parameter has its scalars");
        let factor = floats(step.factors)[step.group];
        if factor.is_nan() {
            return Ok(());
        }
        let (p, g) = (floats_mut(p), floats(g));
        let update = adamw::Update {
            adam: step.adam,
            scalars,
            factor,
        };
        match halves(m) {
            Some(_) => {
                let moments = [halves_mut(m), halves_mut(v)];
                self.exec(|exec| adamw::update(exec, update, p, g, moments))
            }
            None => {
                let moments = [floats_mut(m), floats_mut(v)];
                self.exec(|exec| adamw::update(exec, update, p, g, moments))
            }
        }
    }

    fn lerp(&self, weight: f32, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.exec(|exec| elementwise::lerp(exec, weight, floats_mut(y), floats(x)))
    }

    fn fused_site(&self) -> Option<&dyn FusedSite> {
        Some(self)
    }

    fn theta_in_parts(&self) -> Option<&dyn ThetaInParts> {
        Some(self)
    }
}
