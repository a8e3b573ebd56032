//! The plain f64 device, which defines every operation and is precise enough for finite differences.
//!
//! It has one loop per sum and no fused operation. It is slow on purpose, because fast devices are tested against it.
//! The plain functions that it consists of are public for the tests of kernels.

mod attention;
mod gelu;
mod matrices;
mod parts;
mod rows;
mod site;
mod theta;

use crate::{
    Adam, AdamStep, AttentionDims, Buffer, CachedSequence, Device, Handles, Head, KeptForNorm,
    LossGradient, Matmul, Output, Result, Role, RotaryDims, RotaryTable, RowTargets, RowsToStore,
    SiteRef, Targets, Usage, Write,
};
use std::sync::Arc;

pub use attention::{attention, attention_backward};
pub use gelu::{erf, gelu, gelu_derivative};
pub use matrices::{dot, logits, matmul};
pub use rows::{
    Loss, adamw, clip_factors, cross_entropy, layer_norm, layer_norm_backward, norm_row_backward,
    norm_stats, rotate,
};
pub use site::{SiteGradient, pattention, pattention_backward};
pub use theta::{
    row_backward, row_projections, row_statistics, row_weights, theta_row, theta_row_backward,
};

/// The f64 device. It fuses nothing, so that the composition of a site from primitives is tested on it.
#[derive(Debug, Default)]
pub struct Reference {
    handles: Handles,
}

impl Reference {
    /// A device.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

/// The numbers of a buffer that a [`Reference`] made.
pub fn values(buffer: &Buffer) -> &[f64] {
    buffer.storage::<Vec<f64>>()
}

/// The numbers of a buffer that a [`Reference`] made, mutable.
pub fn values_mut(buffer: &mut Buffer) -> &mut [f64] {
    buffer.storage_mut::<Vec<f64>>()
}

/// The indices of a buffer that a [`Reference`] made.
pub fn indices(buffer: &Buffer) -> &[u32] {
    buffer.storage::<Vec<u32>>()
}

fn put(write: Write, from: &[f64], to: &mut Buffer) {
    let to = values_mut(to);
    assert_eq!(from.len(), to.len());
    match write {
        Write::Replace => to.copy_from_slice(from),
        Write::Add => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
    }
}

fn filled(len: usize, role: Role, number: f64) -> Buffer {
    match role {
        Role::Index => Buffer::new(vec![0u32; len], len),
        _ => Buffer::new(vec![number; len], len),
    }
}

impl Device for Reference {
    fn describe(&self) -> String {
        "reference, f64, 1 thread".into()
    }

    fn handles(&self) -> &Handles {
        &self.handles
    }

    fn alloc(&self, len: usize, role: Role) -> Result<Buffer> {
        Ok(filled(len, role, 0.0))
    }

    /// The arbitrary content is NaN here, so that a read of it is noticed.
    fn temporary(&self, len: usize, role: Role, buffer: &mut Buffer) -> Result<()> {
        *buffer = filled(len, role, f64::NAN);
        Ok(())
    }

    /// Always 0, because no run is planned on this device.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()> {
        let from: Vec<f64> = from.iter().copied().map(f64::from).collect();
        put(Write::Replace, &from, to);
        Ok(())
    }

    fn write_indices(&self, from: &[u32], to: &mut Buffer) -> Result<()> {
        to.storage_mut::<Vec<u32>>().copy_from_slice(from);
        Ok(())
    }

    fn read_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()> {
        let from = &values(from)[start..start + to.len()];
        to.iter_mut()
            .zip(from)
            .for_each(|(to, from)| *to = *from as f32);
        Ok(())
    }

    fn read_accumulator(&self, from: &Buffer, to: &mut [f64]) -> Result<()> {
        to.copy_from_slice(values(from));
        Ok(())
    }

    fn zero(&self, buffer: &mut Buffer) -> Result<()> {
        match buffer.storage_if::<Vec<u32>>() {
            Some(_) => buffer.storage_mut::<Vec<u32>>().fill(0),
            None => values_mut(buffer).fill(0.0),
        }
        Ok(())
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        match from.storage_if::<Vec<u32>>() {
            Some(from) => to.storage_mut::<Vec<u32>>().copy_from_slice(from),
            None => put(Write::Replace, values(from), to),
        }
        Ok(())
    }

    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        put(Write::Add, values(x), y);
        Ok(())
    }

    fn add_to_rows(&self, bias: &Buffer, y: &mut Buffer) -> Result<()> {
        let bias = values(bias);
        for y in values_mut(y).chunks_exact_mut(bias.len()) {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        Ok(())
    }

    fn sum_rows(&self, dy: &Buffer, d_bias: &mut Buffer) -> Result<()> {
        let d_bias = values_mut(d_bias);
        for dy in values(dy).chunks_exact(d_bias.len()) {
            d_bias.iter_mut().zip(dy).for_each(|(b, dy)| *b += dy);
        }
        Ok(())
    }

    fn scale_rows(&self, x: &Buffer, factors: &Buffer, write: Write, y: &mut Buffer) -> Result<()> {
        let (x, factors) = (values(x), values(factors));
        let rows = x.chunks_exact(x.len() / factors.len()).zip(factors);
        let found: Vec<f64> = rows
            .flat_map(|(x, f)| x.iter().map(move |x| f * x))
            .collect();
        put(write, &found, y);
        Ok(())
    }

    fn matmul(&self, product: Matmul<'_>, write: Write, c: Output<'_>) -> Result<()> {
        let found = matmul(&product);
        let to = values_mut(c.buffer);
        for (number, x) in found.into_iter().enumerate() {
            let (row, col) = (number / product.cols, number % product.cols);
            let to = &mut to[c.offset + row * c.row_stride + col];
            match write {
                Write::Replace => *to = x,
                Write::Add => *to += x,
            }
        }
        Ok(())
    }

    fn gelu(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        let found: Vec<f64> = values(x).iter().map(|&x| gelu(x)).collect();
        put(Write::Replace, &found, y);
        Ok(())
    }

    fn gelu_backward(&self, x: &Buffer, dy: &Buffer, dx: &mut Buffer) -> Result<()> {
        let each = values(x).iter().zip(values(dy));
        let found: Vec<f64> = each.map(|(&x, dy)| dy * gelu_derivative(x)).collect();
        put(Write::Replace, &found, dx);
        Ok(())
    }

    fn theta(&self, site: &SiteRef<'_>, scores: &mut Buffer, stats: &mut Buffer) -> Result<()> {
        let (n, groups) = (site.tokens(), site.groups());
        let stats = values_mut(stats).chunks_exact_mut(groups);
        for (row, stats) in values_mut(scores).chunks_exact_mut(n).zip(stats) {
            theta_row(site, row, stats);
        }
        Ok(())
    }

    fn theta_backward(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        _stats: &Buffer,
        d_scores: &mut Buffer,
    ) -> Result<()> {
        let n = site.tokens();
        let d_scores = values_mut(d_scores).chunks_exact_mut(n);
        for (scores, d) in values_mut(scores).chunks_exact_mut(n).zip(d_scores) {
            theta_row_backward(site, scores, d);
        }
        Ok(())
    }

    fn gather_rows(
        &self,
        table: &Buffer,
        index: &Buffer,
        width: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        let table = values(table);
        let rows = values_mut(y).chunks_exact_mut(width);
        for (y, &row) in rows.zip(indices(index)) {
            y.copy_from_slice(&table[row as usize * width..][..width]);
        }
        Ok(())
    }

    fn scatter_add_rows(
        &self,
        index: &Buffer,
        dy: &Buffer,
        width: usize,
        d_table: &mut Buffer,
    ) -> Result<()> {
        let d_table = values_mut(d_table);
        for (dy, &row) in values(dy).chunks_exact(width).zip(indices(index)) {
            let to = &mut d_table[row as usize * width..][..width];
            to.iter_mut().zip(dy).for_each(|(to, dy)| *to += dy);
        }
        Ok(())
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
        let (x, eps) = (values(x), f64::from(eps));
        let stats = values_mut(stats).chunks_exact_mut(2);
        for (x, stats) in x.chunks_exact(width).zip(stats) {
            stats.copy_from_slice(&norm_stats(x, eps));
        }
        let affine = affine.map(|buffers| buffers.map(values));
        put(Write::Replace, &layer_norm(x, affine, eps, width), y);
        Ok(())
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
        let gain = gain.map(values);
        let mut found = Vec::with_capacity(dx.len());
        let rows = values(dy).chunks_exact(width).zip(values(stats).chunks(2));
        for (row, (dy, stats)) in rows.enumerate() {
            let of_row = |numbers| &values(numbers)[row * width..][..width];
            let unit = match kept {
                KeptForNorm::Output(y) => of_row(y).to_vec(),
                KeptForNorm::Input(x) => unit_row(of_row(x), stats),
            };
            found.extend(norm_row_backward(&unit, stats[1], gain, dy));
        }
        put(write, &found, dx);
        Ok(())
    }

    fn layer_norm_backward_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        d_gain: &mut Buffer,
        d_bias: &mut Buffer,
    ) -> Result<()> {
        let width = d_gain.len();
        let (d_gain, d_bias) = (values_mut(d_gain), values_mut(d_bias));
        let rows = values(x).chunks_exact(width).zip(values(stats).chunks(2));
        for ((x, stats), dy) in rows.zip(values(dy).chunks_exact(width)) {
            let unit = unit_row(x, stats);
            for i in 0..width {
                d_gain[i] += dy[i] * unit[i];
                d_bias[i] += dy[i];
            }
        }
        Ok(())
    }

    fn rotate(
        &self,
        table: &RotaryTable,
        dims: RotaryDims,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()> {
        let tables = [&table.cos, &table.sin].map(values);
        rotate(values_mut(x), tables, table.dims, dims, inverse);
        Ok(())
    }

    fn attention(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        log_sums: Option<&mut Buffer>,
    ) -> Result<()> {
        let (found, found_sums) = attention(dims, qkv.map(values));
        put(Write::Replace, &found, o);
        if let Some(log_sums) = log_sums {
            put(Write::Replace, &found_sums, log_sums);
        }
        Ok(())
    }

    fn attention_each(
        &self,
        heads: usize,
        [q, k, v]: [&Buffer; 3],
        sequences: &mut [CachedSequence<'_>],
        o: &mut Buffer,
    ) -> Result<()> {
        let rows: usize = sequences.iter().map(|s| s.queries).sum();
        let (width, mut at) = (o.len() / rows.max(1), 0);
        for sequence in sequences {
            let dims = sequence.dims(heads, width / heads);
            let new = at..at + sequence.queries * width;
            let stored = sequence.seen * width..dims.keys * width;
            for (from, cache) in [k, v].into_iter().zip(&mut sequence.cache) {
                values_mut(cache)[stored.clone()].copy_from_slice(&values(from)[new.clone()]);
            }
            let [keys, all_values] = [0, 1].map(|i| values(sequence.cache[i]));
            let (found, _) = attention(dims, [&values(q)[new.clone()], keys, all_values]);
            values_mut(o)[new.clone()].copy_from_slice(&found);
            at = new.end;
        }
        Ok(())
    }

    fn attention_backward(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        _o: &Buffer,
        _log_sums: &Buffer,
        d_o: &Buffer,
        d_qkv: [&mut Buffer; 3],
    ) -> Result<()> {
        let found = attention_backward(dims, qkv.map(values), values(d_o));
        for (found, to) in found.iter().zip(d_qkv) {
            put(Write::Replace, found, to);
        }
        Ok(())
    }

    fn store_rows(&self, rows: &Buffer, dims: RowsToStore, cache: &mut Buffer) -> Result<()> {
        let (rows, cache) = (values(rows), values_mut(cache));
        let len = dims.length * dims.width;
        for b in 0..dims.batch {
            let to = (b * dims.capacity + dims.at) * dims.width;
            cache[to..to + len].copy_from_slice(&rows[b * len..(b + 1) * len]);
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
        let weight = gradient.as_ref().map_or(0.0, |g| f64::from(g.weight));
        let targets = match targets {
            RowTargets::Classes(classes) => RowTargets::Classes(indices(classes)),
            RowTargets::Soft(weights) => RowTargets::Soft(values(weights)),
        };
        let (h, table) = (values(head.hidden), values(head.table));
        let (bias, scale) = (head.bias.map(values), f64::from(head.scale));
        let found = cross_entropy(h, table, bias, scale, targets, weight, head.width);
        put(Write::Replace, &found.losses, losses);
        if let Some(gradient) = gradient {
            put(Write::Replace, &found.d_hidden, gradient.d_hidden);
            if let Some(d_table) = gradient.d_table {
                put(Write::Add, &found.d_table, d_table);
            }
            if let Some(d_bias) = gradient.d_bias {
                put(Write::Add, &found.d_bias, d_bias);
            }
        }
        Ok(())
    }

    fn sum_of_squares(&self, x: &Buffer, sums: &mut Buffer, group: usize) -> Result<()> {
        let x = values(x);
        values_mut(sums)[group] += dot(x, x);
        Ok(())
    }

    fn clip_factors(&self, sums: &Buffer, limit: f64, factors: &mut Buffer) -> Result<()> {
        clip_factors(values(sums), limit, values_mut(factors));
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
        let scalars = std::array::from_fn(|i| values(step.scalars)[first + i]);
        let factor = values(step.factors)[step.group];
        let (p, m, v) = (values_mut(p), values_mut(m), values_mut(v));
        adamw(step.adam, scalars, factor, p, values(g), m, v);
        Ok(())
    }

    fn lerp(&self, weight: f32, x: &Buffer, y: &mut Buffer) -> Result<()> {
        for (y, x) in values_mut(y).iter_mut().zip(values(x)) {
            *y += f64::from(weight) * (x - *y);
        }
        Ok(())
    }

    fn theta_in_parts(&self) -> Option<&dyn crate::ThetaInParts> {
        Some(self)
    }
}

/// Normalises a row of a norm's input, given its mean and 1/std.
fn unit_row(x: &[f64], stats: &[f64]) -> Vec<f64> {
    x.iter().map(|x| (x - stats[0]) * stats[1]).collect()
}
