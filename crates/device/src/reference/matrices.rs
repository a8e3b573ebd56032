//! Products of matrices.

use super::values;
use crate::{Matmul, Operand};

/// `Σ a·b`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn element(of: &Operand<'_>, row: usize, col: usize) -> f64 {
    let (row, col) = if of.transposed {
        (col, row)
    } else {
        (row, col)
    };
    values(of.buffer)[of.offset + row * of.row_stride + col]
}

/// `scale · A·B`.
///
/// # Shapes
/// `[rows, cols]`.
pub fn matmul(product: &Matmul<'_>) -> Vec<f64> {
    let (a, b) = (&product.a, &product.b);
    let mut c = Vec::with_capacity(product.rows * product.cols);
    for i in 0..product.rows {
        for j in 0..product.cols {
            let terms = (0..product.inner).map(|l| element(a, i, l) * element(b, l, j));
            c.push(f64::from(product.scale) * terms.sum::<f64>());
        }
    }
    c
}

/// `scale · H·Eᵀ`.
///
/// # Shapes
/// `h` `[R, D]`, `table` `[V, D]` to `[R, V]`.
pub fn logits(h: &[f64], table: &[f64], scale: f64, width: usize) -> Vec<f64> {
    let row = |h| (table.chunks_exact(width)).map(move |e| scale * dot(h, e));
    h.chunks_exact(width).flat_map(row).collect()
}
