//! Pattention composed of a device's primitives, for devices that do not have it as one operation.

use std::sync::Arc;
use tokenformer_device::{
    Buffer, Device, FusedSite, Matmul, Operand, Output, Result, Role, SegmentGradient, SiteDims,
    SiteRef, Temp, Write,
};

/// A device whose Pattention is composed of products and `Θ`.
pub(super) struct Composed<'d> {
    pub device: &'d Arc<dyn Device>,
}

impl Composed<'_> {
    /// `scores` `[R, N] = X·Kᵀ`, segments side by side.
    fn products(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        scores: &mut Buffer,
    ) -> Result<()> {
        let tokens = site.tokens();
        for (s, segment) in site.segments.iter().enumerate() {
            let product = Matmul {
                a: Operand::rows(x, dims.d_in),
                b: Operand::transposed(segment.keys, dims.d_in),
                rows: dims.rows,
                inner: dims.d_in,
                cols: segment.tokens,
                scale: 1.0,
            };
            let columns = Output {
                buffer: scores,
                offset: site.offset(s),
                row_stride: tokens,
            };
            self.device.matmul(product, Write::Replace, columns)?;
        }
        Ok(())
    }
}

impl Composed<'_> {
    /// What a segment adds to the output: `y` `[R, D_out] = Σ_s·V_s`, of the weights `Σ` `[R, N]` of all segments.
    pub(super) fn segment_output(
        &self,
        site: &SiteRef<'_>,
        weights: &Buffer,
        dims: SiteDims,
        segment: usize,
        write: Write,
        y: &mut Buffer,
    ) -> Result<()> {
        let product = Matmul {
            a: columns(site, weights, segment),
            b: Operand::rows(site.segments[segment].values, dims.d_out),
            rows: dims.rows,
            inner: site.segments[segment].tokens,
            cols: dims.d_out,
            scale: 1.0,
        };
        self.device
            .matmul(product, write, Output::rows(y, dims.d_out))
    }
}

/// The columns of a segment in scores or weights `[R, N]`.
fn columns<'a>(site: &SiteRef<'_>, buffer: &'a Buffer, segment: usize) -> Operand<'a> {
    Operand {
        buffer,
        offset: site.offset(segment),
        row_stride: site.tokens(),
        transposed: false,
    }
}

impl FusedSite for Composed<'_> {
    fn forward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        y: &mut Buffer,
        kept: Option<[&mut Buffer; 2]>,
    ) -> Result<()> {
        let mut weights = Temp::new(self.device, dims.rows * site.tokens(), Role::Activation)?;
        self.products(site, x, dims, &mut weights)?;
        match kept {
            Some([scores, stats]) => {
                if !scores.is_empty() {
                    self.device.copy(&weights, scores)?;
                }
                self.device.theta(site, &mut weights, stats)?;
            }
            None => {
                let len = dims.rows * site.groups();
                let mut stats = Temp::new(self.device, len, Role::Statistic)?;
                self.device.theta(site, &mut weights, &mut stats)?;
            }
        }
        for s in 0..site.segments.len() {
            self.segment_output(site, &weights, dims, s, Write::nth(s), y)?;
        }
        Ok(())
    }

    fn scores(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        scores: &mut Buffer,
    ) -> Result<()> {
        self.products(site, x, dims, scores)
    }

    fn backward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dy: &Buffer,
        dims: SiteDims,
        [scores, stats]: [&mut Buffer; 2],
        work: &mut Buffer,
        mut dx: Option<(Write, &mut Buffer)>,
        gradients: &mut [SegmentGradient<'_>],
    ) -> Result<()> {
        let tokens = site.tokens();
        for (s, segment) in site.segments.iter().enumerate() {
            // dΣ = dY·Vᵀ.
            let product = Matmul {
                a: Operand::rows(dy, dims.d_out),
                b: Operand::transposed(segment.values, dims.d_out),
                rows: dims.rows,
                inner: dims.d_out,
                cols: segment.tokens,
                scale: 1.0,
            };
            let to = Output {
                buffer: work,
                offset: site.offset(s),
                row_stride: tokens,
            };
            self.device.matmul(product, Write::Replace, to)?;
        }
        // The scores become weights Σ, and dΣ becomes the gradient dA of the scores.
        self.device.theta_backward(site, scores, stats, work)?;
        for (s, (segment, gradient)) in site.segments.iter().zip(gradients).enumerate() {
            if let Some((write, dx)) = &mut dx {
                let product = Matmul {
                    a: columns(site, work, s),
                    b: Operand::rows(segment.keys, dims.d_in),
                    rows: dims.rows,
                    inner: segment.tokens,
                    cols: dims.d_in,
                    scale: 1.0,
                };
                let write = if s == 0 { *write } else { Write::Add };
                self.device
                    .matmul(product, write, Output::rows(dx, dims.d_in))?;
            }
            let Some([d_keys, d_values]) = gradient else {
                continue;
            };
            let transposed = |buffer| Operand {
                transposed: true,
                ..columns(site, buffer, s)
            };
            let product = |a, b, cols| Matmul {
                a,
                b: Operand::rows(b, cols),
                rows: segment.tokens,
                inner: dims.rows,
                cols,
                scale: 1.0,
            };
            // dV += Σᵀ·dY and dK += dAᵀ·X.
            let values = product(transposed(scores), dy, dims.d_out);
            self.device
                .matmul(values, Write::Add, Output::rows(d_values, dims.d_out))?;
            let keys = product(transposed(work), x, dims.d_in);
            self.device
                .matmul(keys, Write::Add, Output::rows(d_keys, dims.d_in))?;
        }
        Ok(())
    }
}
