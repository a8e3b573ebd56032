//! The loss through an output head, a chunk of rows at a time, so that the logits of all rows are never stored.

use super::Cuda;
use super::launch::{THREADS, args, size};
use super::products::{Product, Side};
use super::storage::{floats, indices, number, of_type};
use crate::gpu::Number;
use tokenformer_device::{Buffer, Head, LossGradient, Result, Targets, Write};

/// Bytes of logits that are stored at once.
const LOGITS: usize = 128 << 20;

/// Rows of a chunk. It depends on the number of classes only, so that results do not depend on free memory.
fn chunk_rows(classes: usize) -> usize {
    (LOGITS / size_of::<f32>() / classes.max(1)).clamp(1, 4096)
}

impl Cuda {
    pub(super) fn loss_of_rows(
        &self,
        head: Head<'_>,
        targets: Targets<'_>,
        losses: &mut Buffer,
        mut gradient: Option<LossGradient<'_>>,
    ) -> Result<()> {
        let (width, classes) = (head.width, head.table.len() / head.width);
        let rows = losses.len();
        assert_eq!(head.hidden.len(), rows * width);
        let most = chunk_rows(classes).min(rows);
        let logits = self.scratch(most * classes * size_of::<f32>())?;
        for first in (0..rows).step_by(most.max(1)) {
            let count = most.min(rows - first);
            let logits = (logits.at(), Number::F32);
            let hidden = Side::rows_of(head.hidden, first, width);
            self.multiply(Product {
                shape: [count, width, classes],
                a: hidden,
                b: Side::of_matrix(head.table, width).transposed(),
                c: logits,
                c_stride: classes,
                scale: head.scale,
                write: Write::Replace,
            })?;
            self.loss_of_chunk(
                &head,
                targets,
                [first, count, classes],
                losses,
                logits.0,
                &gradient,
            )?;
            if let Some(gradient) = &mut gradient {
                self.gradients_of_chunk(&head, [first, count, classes], logits, gradient)?;
            }
        }
        Ok(())
    }

    /// Losses of `count` rows from row `first` on; their logits become gradients of the logits.
    fn loss_of_chunk(
        &self,
        head: &Head<'_>,
        targets: Targets<'_>,
        [first, count, classes]: [usize; 3],
        losses: &mut Buffer,
        logits: crate::gpu::Address,
        gradient: &Option<LossGradient<'_>>,
    ) -> Result<()> {
        let (kernel, targets) = match targets {
            Targets::Classes(classes) => (
                "loss_classes",
                indices(classes).plus(first * size_of::<u32>()),
            ),
            Targets::Soft(weights) => (
                "loss_soft",
                floats(weights).plus(first * classes * size_of::<f32>()),
            ),
        };
        let losses = floats(losses).plus(first * size_of::<f32>());
        let weight = gradient.as_ref().map_or(0.0, |gradient| gradient.weight);
        let bias = head.bias.map(floats);
        let wanted = gradient.is_some();
        let args = args![logits, bias, targets, losses, size(classes), weight, wanted];
        // SAFETY: there are logits, targets and losses of `count` rows at these addresses.
        unsafe { self.each_row(kernel, count, THREADS, args) }
    }

    /// What a chunk adds to the gradients, from the gradients of its logits.
    fn gradients_of_chunk(
        &self,
        head: &Head<'_>,
        [first, count, classes]: [usize; 3],
        logits: (crate::gpu::Address, Number),
        gradient: &mut LossGradient<'_>,
    ) -> Result<()> {
        let width = head.width;
        if let Some(d_bias) = &mut gradient.d_bias {
            // SAFETY: `count` rows of logits, and a bias per class.
            unsafe { self.add_column_sums(logits, [count, classes], floats(d_bias))? };
        }
        let d_logits = Side::at(logits, classes);
        let number = number(gradient.d_hidden);
        let to = of_type(gradient.d_hidden, number).plus(first * width * number.bytes());
        self.multiply(Product {
            shape: [count, classes, width],
            a: d_logits,
            b: Side::of_matrix(head.table, width),
            c: (to, number),
            c_stride: width,
            scale: head.scale,
            write: Write::Replace,
        })?;
        let Some(d_table) = &mut gradient.d_table else {
            return Ok(());
        };
        self.multiply(Product {
            shape: [classes, count, width],
            a: d_logits.transposed(),
            b: Side::rows_of(head.hidden, first, width),
            c: (floats(d_table), Number::F32),
            c_stride: width,
            scale: head.scale,
            write: Write::Add,
        })
    }
}
