//! Operations on rows: sums, norms, rotation, rows by index.

use super::Cuda;
use super::launch::{ROW_THREADS, THREADS, args, named, size};
use super::storage::{floats, indices, number, of_type};
use crate::gpu::{Address, Number};
use tokenformer_device::{
    Buffer, KeptForNorm, Result, RotaryDims, RotaryTable, RowsToStore, Write,
};

/// Rows that a block sums, and blocks that a column is cut into at most: enough to fill a GPU.
const PART_ROWS: usize = 64;
const MOST_PARTS: usize = 128;

/// How the sum of rows is cut: rows of a part, and parts. It depends on the number of rows only.
fn parts(rows: usize) -> [usize; 2] {
    let part_rows = PART_ROWS.max(rows.div_ceil(MOST_PARTS));
    [part_rows, rows.div_ceil(part_rows)]
}

impl Cuda {
    /// Runs a kernel that sums parts of the columns of `[rows, width]` into `sums.len()` buffers, and adds the parts to
    /// `sums`. `args` are the kernel's arguments, given the addresses of the parts and the rows of a part.
    ///
    /// # Safety
    /// As [`Cuda::launch`].
    unsafe fn sum_parts<const N: usize>(
        &self,
        kernel: &str,
        [rows, width]: [usize; 2],
        sums: [Address; N],
        run: impl FnOnce([Address; N], u32) -> Vec<crate::gpu::Arg>,
    ) -> Result<()> {
        if rows == 0 || width == 0 {
            return Ok(());
        }
        let [part_rows, parts] = parts(rows);
        let bytes = parts * width * size_of::<f32>();
        let scratch = self.scratch(N * bytes)?;
        let partial = std::array::from_fn(|i| scratch.at().plus(i * bytes));
        let grid = [size(width.div_ceil(32)), size(parts), 1];
        // SAFETY: the caller's guarantee; the parts lie in the scratch memory.
        unsafe {
            self.launch(kernel, grid, THREADS, 0, &run(partial, size(part_rows)))?;
            for (partial, sum) in partial.into_iter().zip(sums) {
                let args = args![partial, sum, size(parts), size(width)];
                self.each("add_parts_f32", width, args)?;
            }
        }
        Ok(())
    }

    /// Adds the sums of the columns of `[rows, width]` numbers at `x` to f32 numbers at `to`.
    ///
    /// # Safety
    /// The addresses hold as many numbers.
    pub(super) unsafe fn add_column_sums(
        &self,
        (x, number): (Address, crate::gpu::Number),
        [rows, width]: [usize; 2],
        to: Address,
    ) -> Result<()> {
        let kernel = named!("sum_rows", number);
        // SAFETY: the caller's guarantee.
        unsafe {
            self.sum_parts(kernel, [rows, width], [to], |[partial], part_rows| {
                args![x, partial, size(rows), size(width), part_rows].to_vec()
            })
        }
    }

    pub(super) fn sum_of_rows(&self, dy: &Buffer, d_bias: &mut Buffer) -> Result<()> {
        let (width, number) = (d_bias.len(), number(dy));
        assert!(dy.len().is_multiple_of(width));
        let x = (of_type(dy, number), number);
        // SAFETY: `dy` is rows of the width of `d_bias`.
        unsafe { self.add_column_sums(x, [dy.len() / width, width], floats(d_bias)) }
    }

    pub(super) fn rows_of_table(
        &self,
        table: &Buffer,
        index: &Buffer,
        width: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        assert_eq!(y.len(), index.len() * width);
        let (from, to) = (number(table), number(y));
        let kernel = named!("gather_rows", from, to);
        let (table, out) = (of_type(table, from), of_type(y, to));
        let args = args![table, indices(index), out, y.len() as u64, size(width)];
        // SAFETY: the output has a row per index, and indices are rows of the table.
        unsafe { self.each(kernel, y.len(), args) }
    }

    pub(super) fn add_rows_to_table(
        &self,
        index: &Buffer,
        dy: &Buffer,
        width: usize,
        d_table: &mut Buffer,
    ) -> Result<()> {
        assert_eq!(dy.len(), index.len() * width);
        let (from, to) = (number(dy), number(d_table));
        let kernel = named!("scatter_add", from, to);
        let rows = index.len();
        let (dy, table) = (of_type(dy, from), of_type(d_table, to));
        let args = args![indices(index), dy, table, size(rows), size(width)];
        // SAFETY: there is a row per index, and indices are rows of the table.
        unsafe { self.each_row(kernel, rows, THREADS, args) }
    }

    pub(super) fn rows_to_cache(
        &self,
        rows: &Buffer,
        dims: RowsToStore,
        cache: &mut Buffer,
    ) -> Result<()> {
        assert_eq!(rows.len(), dims.batch * dims.length * dims.width);
        assert!(cache.len() >= dims.batch * dims.capacity * dims.width);
        let number = number(rows);
        let (from, to) = (of_type(rows, number), of_type(cache, number));
        // SAFETY: the buffers have these sizes.
        unsafe { self.store_at(dims, number, from, to) }
    }

    /// # Safety
    /// There must be rows `[B·length, width]` and a cache `[B, capacity, width]` of this type at the addresses.
    pub(super) unsafe fn store_at(
        &self,
        dims: RowsToStore,
        number: Number,
        from: Address,
        to: Address,
    ) -> Result<()> {
        let RowsToStore {
            batch,
            length,
            width,
            at,
            capacity,
        } = dims;
        assert!(at + length <= capacity);
        let (kernel, n) = (named!("store_rows", number), batch * length * width);
        let [length, width, at, capacity] = [length, width, at, capacity].map(size);
        let args = args![from, to, n as u64, length, width, at, capacity];
        // SAFETY: the caller guarantees it, and the rows fit the cache.
        unsafe { self.each(kernel, n, args) }
    }

    pub(super) fn norm_rows(
        &self,
        x: &Buffer,
        affine: Option<[&Buffer; 2]>,
        eps: f32,
        width: usize,
        y: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()> {
        let (rows, number) = (x.len() / width, number(x));
        assert!(x.len() == y.len() && stats.len() == 2 * rows);
        let [gain, bias] = affine.map_or([None; 2], |both| both.map(|b| Some(floats(b))));
        let (x, y) = (of_type(x, number), of_type(y, number));
        let args = args![x, gain, bias, y, floats(stats), size(width), eps];
        let kernel = named!("layer_norm", number);
        // SAFETY: sizes as asserted; gain and bias have the width.
        unsafe { self.each_row(kernel, rows, ROW_THREADS, args) }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn norm_rows_backward(
        &self,
        kept: KeptForNorm<'_>,
        stats: &Buffer,
        gain: Option<&Buffer>,
        dy: &Buffer,
        width: usize,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()> {
        let (kept, is_input) = match kept {
            KeptForNorm::Output(y) => (y, false),
            KeptForNorm::Input(x) => (x, true),
        };
        let (rows, number) = (dy.len() / width, number(dy));
        assert!(kept.len() == dy.len() && dx.len() == dy.len() && stats.len() == 2 * rows);
        let [kept, dy, dx] = [kept, dy, &*dx].map(|b| of_type(b, number));
        let (gain, adds) = (gain.map(floats), write == Write::Add);
        let args = args![
            kept,
            is_input,
            floats(stats),
            gain,
            dy,
            dx,
            adds,
            size(width)
        ];
        let kernel = named!("layer_norm_backward", number);
        // SAFETY: sizes as asserted.
        unsafe { self.each_row(kernel, rows, ROW_THREADS, args) }
    }

    pub(super) fn norm_rows_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        d_gain: &mut Buffer,
        d_bias: &mut Buffer,
    ) -> Result<()> {
        let (width, number) = (d_gain.len(), number(x));
        let rows = x.len() / width;
        assert!(dy.len() == x.len() && stats.len() == 2 * rows && d_bias.len() == width);
        let [x, dy] = [x, dy].map(|b| of_type(b, number));
        let (stats, sums) = (floats(stats), [floats(d_gain), floats(d_bias)]);
        let kernel = named!("layer_norm_affine", number);
        // SAFETY: sizes as asserted.
        unsafe {
            self.sum_parts(kernel, [rows, width], sums, |[gain, bias], part_rows| {
                args![x, stats, dy, gain, bias, size(rows), size(width), part_rows].to_vec()
            })
        }
    }

    pub(super) fn turn(
        &self,
        table: &RotaryTable,
        dims: RotaryDims,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()> {
        let (half, number) = (table.dims / 2, number(x));
        let rows = x.len() / (dims.heads * dims.channels);
        let pairs = rows * dims.heads * half;
        assert!(table.dims <= dims.channels);
        assert!(table.cos.len() >= (dims.first + dims.length.min(rows)) * half);
        let [half, heads, channels] = [half, dims.heads, dims.channels].map(size);
        let [length, first] = [dims.length, dims.first].map(size);
        let sign = if inverse { -1.0f32 } else { 1.0 };
        let (at, cos, sin) = (of_type(x, number), floats(&table.cos), floats(&table.sin));
        let args = args![
            at,
            cos,
            sin,
            pairs as u64,
            half,
            heads,
            channels,
            length,
            first,
            sign
        ];
        // SAFETY: the table has the positions, as asserted, and pairs lie inside of heads.
        unsafe { self.each(named!("rotate", number), pairs, args) }
    }
}
