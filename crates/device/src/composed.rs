//! Pattention composed of a device's primitives, for devices that do not have it as one operation.

use crate::{
    Buffer, Device, FusedSite, Matmul, Operand, Output, Result, Role, Segment, SegmentGradient,
    SiteDims, SiteRef, Temp, Write,
};
use std::sync::Arc;

/// A device whose Pattention is composed of products and `Θ`.
#[derive(Clone, Copy, Debug)]
pub struct Composed<'d> {
    /// The device.
    pub device: &'d Arc<dyn Device>,
}

impl Composed<'_> {
    /// `scores` `[R, N] = X·Kᵀ`, segments side by side.
    pub(crate) fn products(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        scores: &mut Buffer,
    ) -> Result<()> {
        let size = [dims.rows, dims.d_in];
        self.side_by_side(site, x, size, |segment| segment.keys, scores)
    }

    /// `to` `[R, N] = A·Mᵀ` of `A` `[R, D]`, where `M` is the keys or the values of each segment.
    fn side_by_side<'s>(
        &self,
        site: &SiteRef<'s>,
        a: &Buffer,
        [rows, width]: [usize; 2],
        matrix: impl Fn(&Segment<&'s Buffer>) -> &'s Buffer,
        to: &mut Buffer,
    ) -> Result<()> {
        for (s, segment) in site.segments.iter().enumerate().filter(has_tokens) {
            let product = Matmul {
                a: Operand::rows(a, width),
                b: Operand::transposed(matrix(segment), width),
                rows,
                inner: width,
                cols: segment.tokens,
                scale: 1.0,
            };
            let columns = Output {
                buffer: &mut *to,
                offset: site.offset(s),
                row_stride: site.tokens(),
            };
            self.device.matmul(product, Write::Replace, columns)?;
        }
        Ok(())
    }

    /// What a segment adds to the output: `y` `[R, D_out] = Σ_s·V_s`, of the weights `Σ` `[R, N]` of all segments.
    ///
    /// # Errors
    /// If the device fails.
    pub fn segment_output(
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

    /// `y` `[R, D_out] = Σ·V`, of the weights `Σ` `[R, N]`.
    pub(crate) fn outputs(
        &self,
        site: &SiteRef<'_>,
        weights: &Buffer,
        dims: SiteDims,
        y: &mut Buffer,
    ) -> Result<()> {
        let present = (0..site.segments.len()).filter(|&s| site.segments[s].tokens > 0);
        for (nth, s) in present.enumerate() {
            self.segment_output(site, weights, dims, s, Write::nth(nth), y)?;
        }
        Ok(())
    }

    /// `d` `[R, N] = dY·Vᵀ`, the gradient of the weights.
    pub(crate) fn weight_gradient(
        &self,
        site: &SiteRef<'_>,
        dy: &Buffer,
        dims: SiteDims,
        d: &mut Buffer,
    ) -> Result<()> {
        let size = [dims.rows, dims.d_out];
        self.side_by_side(site, dy, size, |segment| segment.values, d)
    }

    /// `dx` `[R, D_in] = dA·K`, of the gradient `dA` `[R, N]` of the scores.
    pub(crate) fn input_gradient(
        &self,
        site: &SiteRef<'_>,
        d_scores: &Buffer,
        dims: SiteDims,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()> {
        let segments = site.segments.iter().enumerate().filter(has_tokens);
        for (nth, (s, segment)) in segments.enumerate() {
            let product = Matmul {
                a: columns(site, d_scores, s),
                b: Operand::rows(segment.keys, dims.d_in),
                rows: dims.rows,
                inner: segment.tokens,
                cols: dims.d_in,
                scale: 1.0,
            };
            let write = if nth == 0 { write } else { Write::Add };
            self.device
                .matmul(product, write, Output::rows(dx, dims.d_in))?;
        }
        Ok(())
    }

    /// `dV += Σᵀ·dY` and `dK += dAᵀ·X` of segments that are trained.
    pub(crate) fn token_gradients(
        &self,
        site: &SiteRef<'_>,
        [x, dy]: [&Buffer; 2],
        [weights, d_scores]: [&Buffer; 2],
        dims: SiteDims,
        gradients: &mut [SegmentGradient<'_>],
    ) -> Result<()> {
        let segments = site.segments.iter().enumerate().filter(has_tokens);
        for (s, segment) in segments {
            let Some([d_keys, d_values]) = &mut gradients[s] else {
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
            let values = product(transposed(weights), dy, dims.d_out);
            self.device
                .matmul(values, Write::Add, Output::rows(d_values, dims.d_out))?;
            let keys = product(transposed(d_scores), x, dims.d_in);
            self.device
                .matmul(keys, Write::Add, Output::rows(d_keys, dims.d_in))?;
        }
        Ok(())
    }
}

/// Whether a segment has tokens; one whose tokens are all on other devices has none.
fn has_tokens<W>((_, segment): &(usize, &Segment<W>)) -> bool {
    segment.tokens > 0
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
        self.outputs(site, &weights, dims, y)
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
        dx: Option<(Write, &mut Buffer)>,
        gradients: &mut [SegmentGradient<'_>],
    ) -> Result<()> {
        self.weight_gradient(site, dy, dims, work)?;
        // The scores become weights Σ, and dΣ becomes the gradient dA of the scores.
        self.device.theta_backward(site, scores, stats, work)?;
        if let Some((write, dx)) = dx {
            self.input_gradient(site, work, dims, write, dx)?;
        }
        self.token_gradients(site, [x, dy], [scores, work], dims, gradients)
    }
}
