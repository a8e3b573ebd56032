//! The device: each operation is a few launches of kernels or products on a GPU.

mod attention;
pub mod flash;
mod launch;
mod loss;
mod memory;
mod optimizer;
mod pool;
mod products;
mod rows;
mod storage;
mod theta;

use crate::gpu::{Gpu, GpuError, Number};
use crate::planned::Planned;
use launch::{args, named, size};
use pool::{Block, Pool};
use products::{Product, Side};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use storage::{Form, Place, Storage, floats, number, of_type};
use tokenformer_device::{
    AdamStep, AttentionDims, Buffer, CachedSequence, Device, DeviceError, Handles, Head,
    KeptForNorm, LossGradient, Matmul, Output, PackedMatrix, Precision, Result, Role, RotaryDims,
    RotaryTable, RowsToStore, SiteRef, Targets, Usage, WeightFormat, Write,
};

/// A GPU as a device. Operations are queued and run in order; only reads wait for them.
///
/// Results have the same bits in every run on the same GPU with the same libraries: no kernel uses atomics, and how sums
/// are cut depends on shapes only.
pub struct Cuda {
    gpu: Arc<dyn Gpu>,
    precision: Precision,
    /// The type in which f32 factors are multiplied.
    products: Number,
    pool: Arc<Pool>,
    handles: Handles,
    /// Bytes of long-lived buffers.
    persistent: Arc<AtomicUsize>,
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Cuda {
    /// A device on a GPU. In [`Precision::Bf16`] the factors of products are rounded to bfloat16.
    pub fn new(gpu: Arc<dyn Gpu>, precision: Precision) -> Arc<Self> {
        Arc::new(Self {
            pool: Pool::new(Arc::clone(&gpu)),
            products: match precision {
                Precision::F32 => Number::F32,
                Precision::Bf16 => Number::Bf16,
            },
            gpu,
            precision,
            handles: Handles::default(),
            persistent: Arc::default(),
        })
    }

    fn out_of_memory(&self, needed_bytes: usize) -> DeviceError {
        DeviceError::OutOfMemory {
            device: self.describe(),
            needed_bytes,
        }
    }

    /// The result of a call of the GPU as one of the device.
    fn done<T>(&self, what: &str, result: std::result::Result<T, GpuError>) -> Result<T> {
        result.map_err(|error| match error {
            GpuError::OutOfMemory { bytes } => self.out_of_memory(bytes),
            GpuError::Failed { operation, reason } => DeviceError::Failed {
                device: self.describe(),
                reason: match operation == what {
                    true => reason,
                    false => format!("{operation}: {reason}"),
                },
                operation: what.into(),
            },
        })
    }

    /// Memory for the time of an operation.
    fn scratch(&self, bytes: usize) -> Result<Block> {
        self.done("an allocation", self.pool.take(bytes.max(1)))
    }
}

impl Device for Cuda {
    fn describe(&self) -> String {
        format!("cuda, {}, {}", self.precision, self.gpu.describe())
    }

    fn handles(&self) -> &Handles {
        &self.handles
    }

    fn alloc(&self, len: usize, role: Role) -> Result<Buffer> {
        self.new_buffer(len, role)
    }

    fn temporary(&self, len: usize, role: Role, buffer: &mut Buffer) -> Result<()> {
        self.new_temporary(len, role, buffer)
    }

    fn release(&self, buffer: &mut Buffer) {
        let (place, form) = (Place::Nowhere, Form::F32);
        buffer.refill(Storage { place, form }, 0);
    }

    fn trim(&self) {
        self.pool.trim();
    }

    fn usage(&self) -> Usage {
        let [temporary, temporary_reserved] = self.pool.usage();
        Usage {
            persistent: self.persistent.load(Ordering::Relaxed),
            temporary,
            temporary_reserved,
            scratch: self.gpu.scratch_bytes(),
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        let free = self.gpu.memory().ok()?.free + self.pool.free_bytes();
        Some(free as u64)
    }

    fn activation_bytes(&self) -> usize {
        Form::of(Role::Activation, self.precision).bytes()
    }

    fn dry_run(&self) -> Result<Arc<dyn Device>> {
        let planned = Planned::of(&*self.gpu);
        Ok(Self::new(Arc::new(planned), self.precision))
    }

    fn synchronize(&self) -> Result<()> {
        self.done("waiting for the GPU", self.gpu.synchronize())
    }

    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()> {
        self.write_numbers(from, to)
    }

    fn write_indices(&self, from: &[u32], to: &mut Buffer) -> Result<()> {
        self.write_rows(from, to)
    }

    fn read_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()> {
        self.read_numbers(from, start, to)
    }

    fn read_accumulator(&self, from: &Buffer, to: &mut [f64]) -> Result<()> {
        self.read_sums(from, to)
    }

    fn zero(&self, buffer: &mut Buffer) -> Result<()> {
        self.zeroed(buffer)
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        self.copied(from, to)
    }

    fn pack_weights(
        &self,
        weights: Buffer,
        matrix: PackedMatrix,
        format: WeightFormat,
    ) -> Result<Buffer> {
        self.packed(weights, matrix, format)
    }

    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        assert_eq!(x.len(), y.len());
        let number = number(y);
        let args = args![of_type(x, number), of_type(y, number), y.len() as u64];
        // SAFETY: both have the same length.
        unsafe { self.each(named!("add", number), y.len(), args) }
    }

    fn add_to_rows(&self, bias: &Buffer, y: &mut Buffer) -> Result<()> {
        assert!(y.len().is_multiple_of(bias.len()));
        let number = number(y);
        let (n, width) = (y.len() as u64, size(bias.len()));
        let args = args![floats(bias), of_type(y, number), n, width];
        // SAFETY: the rows have the width of the bias.
        unsafe { self.each(named!("add_to_rows", number), y.len(), args) }
    }

    fn sum_rows(&self, dy: &Buffer, d_bias: &mut Buffer) -> Result<()> {
        self.sum_of_rows(dy, d_bias)
    }

    fn scale_rows(&self, x: &Buffer, factors: &Buffer, write: Write, y: &mut Buffer) -> Result<()> {
        assert!(x.len() == y.len() && x.len().is_multiple_of(factors.len()));
        let (number, width) = (number(y), size(x.len() / factors.len()));
        let (from, to, n) = (of_type(x, number), of_type(y, number), y.len() as u64);
        let args = args![from, floats(factors), to, n, width, write == Write::Add];
        // SAFETY: there is a factor per row.
        unsafe { self.each(named!("scale_rows", number), y.len(), args) }
    }

    fn matmul(&self, product: Matmul<'_>, write: Write, c: Output<'_>) -> Result<()> {
        let number = number(c.buffer);
        let to = of_type(c.buffer, number).plus(c.offset * number.bytes());
        self.multiply(Product {
            shape: [product.rows, product.inner, product.cols],
            a: Side::of_operand(product.a),
            b: Side::of_operand(product.b),
            c: (to, number),
            c_stride: c.row_stride,
            scale: product.scale,
            write,
        })
    }

    fn gelu(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        assert_eq!(x.len(), y.len());
        let number = number(y);
        let args = args![of_type(x, number), of_type(y, number), y.len() as u64];
        // SAFETY: both have the same length.
        unsafe { self.each(named!("gelu", number), y.len(), args) }
    }

    fn gelu_backward(&self, x: &Buffer, dy: &Buffer, dx: &mut Buffer) -> Result<()> {
        assert!(x.len() == dx.len() && dy.len() == dx.len());
        let number = number(dx);
        let [x, dy, to] = [x, dy, &*dx].map(|b| of_type(b, number));
        let args = args![x, dy, to, dx.len() as u64];
        // SAFETY: all have the same length.
        unsafe { self.each(named!("gelu_backward", number), dx.len(), args) }
    }

    fn theta(&self, site: &SiteRef<'_>, scores: &mut Buffer, stats: &mut Buffer) -> Result<()> {
        self.theta_of_rows(site, scores, stats)
    }

    fn theta_backward(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        stats: &Buffer,
        d_scores: &mut Buffer,
    ) -> Result<()> {
        self.theta_of_rows_backward(site, scores, stats, d_scores)
    }

    fn gather_rows(
        &self,
        table: &Buffer,
        index: &Buffer,
        width: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        self.rows_of_table(table, index, width, y)
    }

    fn scatter_add_rows(
        &self,
        index: &Buffer,
        dy: &Buffer,
        width: usize,
        d_table: &mut Buffer,
    ) -> Result<()> {
        self.add_rows_to_table(index, dy, width, d_table)
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
        self.norm_rows(x, affine, eps, width, y, stats)
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
        self.norm_rows_backward(kept, stats, gain, dy, width, write, dx)
    }

    fn layer_norm_backward_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        d_gain: &mut Buffer,
        d_bias: &mut Buffer,
    ) -> Result<()> {
        self.norm_rows_affine(x, stats, dy, d_gain, d_bias)
    }

    fn rotate(
        &self,
        table: &RotaryTable,
        dims: RotaryDims,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()> {
        self.turn(table, dims, inverse, x)
    }

    fn attention(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        log_sums: Option<&mut Buffer>,
    ) -> Result<()> {
        self.attend(dims, qkv, o, log_sums)
    }

    fn attention_each(
        &self,
        heads: usize,
        qkv: [&Buffer; 3],
        sequences: &mut [CachedSequence<'_>],
        o: &mut Buffer,
    ) -> Result<()> {
        self.attend_each(heads, qkv, sequences, o)
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
        self.attend_backward(dims, qkv, o, log_sums, d_o, d_qkv)
    }

    fn store_rows(&self, rows: &Buffer, dims: RowsToStore, cache: &mut Buffer) -> Result<()> {
        self.rows_to_cache(rows, dims, cache)
    }

    fn loss(
        &self,
        head: Head<'_>,
        targets: Targets<'_>,
        losses: &mut Buffer,
        gradient: Option<LossGradient<'_>>,
    ) -> Result<()> {
        self.loss_of_rows(head, targets, losses, gradient)
    }

    fn sum_of_squares(&self, x: &Buffer, sums: &mut Buffer, group: usize) -> Result<()> {
        self.add_squares(x, sums, group)
    }

    fn clip_factors(&self, sums: &Buffer, limit: f64, factors: &mut Buffer) -> Result<()> {
        self.factors(sums, limit, factors)
    }

    fn adamw(
        &self,
        step: AdamStep<'_>,
        p: &mut Buffer,
        g: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
    ) -> Result<()> {
        self.update(step, p, g, m, v)
    }

    fn lerp(&self, weight: f32, x: &Buffer, y: &mut Buffer) -> Result<()> {
        assert_eq!(x.len(), y.len());
        let args = args![floats(x), floats(y), weight, y.len() as u64];
        // SAFETY: both have the same length.
        unsafe { self.each("lerp_f32", y.len(), args) }
    }
}
