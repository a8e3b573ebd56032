//! Products of matrices.

use super::Cuda;
use super::launch::{args, named, size};
use super::pool::Block;
use super::storage::{number, of_type};
use crate::gemm;
use crate::gpu::{Address, Factor, Gemm, Number};
use tokenformer_device::{Buffer, Operand, Result, Write};

/// A factor of a product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    at: Address,
    number: Number,
    stride: usize,
    transposed: bool,
}

impl Side {
    /// A matrix of `cols` columns at an address.
    pub fn at((at, number): (Address, Number), cols: usize) -> Self {
        Self {
            at,
            number,
            stride: cols,
            transposed: false,
        }
    }

    /// A buffer as a matrix of `cols` columns.
    pub fn of_matrix(buffer: &Buffer, cols: usize) -> Self {
        Self::rows_of(buffer, 0, cols)
    }

    /// The rows of a matrix of `cols` columns from row `first` on.
    pub fn rows_of(buffer: &Buffer, first: usize, cols: usize) -> Self {
        let number = number(buffer);
        let at = of_type(buffer, number).plus(first * cols * number.bytes());
        Self::at((at, number), cols)
    }

    pub fn of_operand(operand: Operand<'_>) -> Self {
        let number = number(operand.buffer);
        Self {
            at: of_type(operand.buffer, number).plus(operand.offset * number.bytes()),
            number,
            stride: operand.row_stride,
            transposed: operand.transposed,
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }

    fn factor(self) -> Factor {
        Factor {
            at: self.at,
            number: self.number,
            row_stride: self.stride,
            transposed: self.transposed,
            batch_stride: 0,
        }
    }
}

/// `C = scale · A·B`, or added to `C`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// Rows, length of the sums, columns.
    pub shape: [usize; 3],
    pub a: Side,
    pub b: Side,
    pub c: (Address, Number),
    pub c_stride: usize,
    pub scale: f32,
    pub write: Write,
}

impl Cuda {
    /// The type in which a product's factors are multiplied: bfloat16 if one of them is stored so.
    fn type_of_factors(&self, product: &Product) -> Number {
        match product.a.number == Number::F32 && product.b.number == Number::F32 {
            true => self.products,
            false => Number::Bf16,
        }
    }

    /// A factor `[rows, cols]` in the type of the product; a copy lives as long as the block. In bfloat16 the rows of a factor
    /// begin where tensor cores can load them: so the kernel of a product, and with it the order of its sums, does not depend
    /// on the matrix that the factor is cut from.
    fn converted(
        &self,
        side: Side,
        [rows, cols]: [usize; 2],
        to: Number,
    ) -> Result<(Side, Option<Block>)> {
        if side.number == to && (to == Number::F32 || gemm::is_aligned(&side.factor(), 1)) {
            return Ok((side, None));
        }
        assert_eq!(to, Number::Bf16, "factors are rounded, not widened");
        let (rows, cols) = if side.transposed {
            (cols, rows)
        } else {
            (rows, cols)
        };
        let pitch = cols.next_multiple_of(gemm::ALIGNED_NUMBERS);
        let copy = self.scratch(rows * pitch * to.bytes())?;
        let (count, stride) = (rows * cols, side.stride);
        if side.number == Number::F32 && stride == cols && pitch == cols {
            self.round_to(side.at, count, copy.at())?;
        } else {
            let [stride, pitch] = [stride, pitch].map(|x| x as u64);
            let args = args![side.at, copy.at(), count as u64, size(cols), stride, pitch];
            // SAFETY: the stored matrix has rows of this length and stride, and the copy room for as many.
            unsafe { self.each(named!("pack_rows", side.number), count, args)? };
        }
        let side = Side {
            at: copy.at(),
            number: to,
            stride: pitch,
            ..side
        };
        Ok((side, Some(copy)))
    }

    /// Multiplies. A sum of no numbers is 0.
    pub(super) fn multiply(&self, product: Product) -> Result<()> {
        let [m, k, n] = product.shape;
        if m == 0 || n == 0 || (k == 0 && product.write == Write::Add) {
            return Ok(());
        }
        assert!(k > 0, "a product of matrices without columns");
        let number = self.type_of_factors(&product);
        let (a, _a_copy) = self.converted(product.a, [m, k], number)?;
        let (b, _b_copy) = self.converted(product.b, [k, n], number)?;
        let product = Gemm {
            m,
            n,
            k,
            a: a.factor(),
            b: b.factor(),
            c: product.c.0,
            c_number: product.c.1,
            c_row_stride: product.c_stride,
            c_batch_stride: 0,
            alpha: product.scale,
            beta: match product.write {
                Write::Replace => 0.0,
                Write::Add => 1.0,
            },
            batch: 1,
        };
        // SAFETY: the operands lie inside of their buffers.
        self.done("a product", unsafe { self.gpu.gemm(&product) })
    }

    /// The numbers of a buffer rounded to bfloat16, at an address that holds as many.
    pub(super) fn round_to(&self, from: Address, count: usize, to: Address) -> Result<()> {
        // SAFETY: the caller passes addresses of `count` numbers.
        unsafe { self.each("round_bf16", count, args![from, to, count as u64]) }
    }
}
