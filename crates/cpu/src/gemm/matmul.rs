//! A product of two matrices; B is packed in stripes unless there are only a few rows of f32.

use super::{
    Element, Mat, MatMut, Packed, Source, Write, packed_lines, par_gemm_packed, par_pack,
    par_product,
};
use crate::exec::{Exec, Pieces};

/// With fewer rows it is not worth packing B.
const FEW_ROWS: usize = 8;
/// Elements of B that are packed at a time.
const STRIPE: usize = 1 << 21;

/// Divides `len` columns (or rows) of `across` elements each into pieces that are packed at a time.
pub(crate) fn stripes<P: Element>(len: usize, across: usize) -> Pieces {
    let width = Packed::<P>::COLS;
    Pieces::new(len, (STRIPE / across.max(1) / width).max(1) * width)
}

/// `C = scale · A·B (+ C)` with factors of type `P`; with few rows an f32 B is read in place.
pub fn par_matmul<P: Element>(
    exec: &mut Exec<'_>,
    mut c: MatMut<'_>,
    write: Write,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
) where
    f32: Source<P>,
{
    let ([rows, inner], [_, cols]) = (a.shape(), b.shape());
    if P::IS_EXACT && rows < FEW_ROWS {
        return par_product(exec, c, write, a, b, scale);
    }
    let stripes = stripes::<P>(cols, inner);
    for stripe in (0..stripes.count()).map(|i| stripes.range(i)) {
        let mut lines = exec
            .scratch
            .take_lines(packed_lines::<P>(inner, stripe.len()));
        let block = b.col_block(stripe.start, stripe.len());
        let packed = par_pack::<P, f32>(exec, &mut lines, block);
        let c = c.col_block(stripe.start, stripe.len());
        par_gemm_packed(exec, c, write, a, packed, scale);
    }
}
