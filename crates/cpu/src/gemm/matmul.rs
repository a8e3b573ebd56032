//! A product of any matrices: B is packed in stripes, unless the rows are few.

use super::{
    Element, Mat, MatMut, Packed, Source, Write, packed_lines, par_gemm_packed, par_pack,
    par_product,
};
use crate::exec::{Exec, Pieces};

/// Fewer rows than these are not worth packing B for.
const FEW_ROWS: usize = 8;
/// Elements of B that are packed at a time.
const STRIPE: usize = 1 << 21;

/// `C = scale · A·B (+ C)` with factors of type `P`. `c` starts with the first element of `C`, whose rows are `c_stride`
/// apart. With few rows B is read as it lies, in f32.
pub fn par_matmul<P: Element>(
    exec: &mut Exec<'_>,
    c: &mut [f32],
    c_stride: usize,
    write: Write,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
) where
    f32: Source<P>,
{
    let ([rows, inner], [_, cols]) = (a.shape(), b.shape());
    if rows < FEW_ROWS {
        let c = MatMut::strided(c, rows, cols, c_stride);
        return par_product(exec, c, write, a, b, scale);
    }
    let width = Packed::<P>::COLS;
    let stripes = Pieces::new(cols, (STRIPE / inner.max(1) / width).max(1) * width);
    for stripe in (0..stripes.count()).map(|i| stripes.range(i)) {
        let mut lines = exec
            .scratch
            .take_lines(packed_lines::<P>(inner, stripe.len()));
        let block = b.t().row_block(stripe.start, stripe.len()).t();
        let packed = par_pack::<P, f32>(exec, &mut lines, block);
        let c = MatMut::strided(&mut c[stripe.start..], rows, stripe.len(), c_stride);
        par_gemm_packed(exec, c, write, a, packed, scale);
    }
}
