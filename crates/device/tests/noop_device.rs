//! The smallest device: memory on the host, and operations that compute nothing. It shows what a new device must have,
//! and what the seam gives it: handles, temporaries, packing in f32, errors, no fused operation.

use std::sync::Arc;
use tokenformer_device::{
    AdamStep, AttentionDims, Buffer, CachedSequence, Collective, Device, DeviceError, Handles,
    Head, KeptForNorm, LossGradient, Matmul, Operand, Output, PackedMatrix, Result, Role,
    RotaryDims, RotaryTable, RowsToStore, Single, SiteRef, Targets, Temp, Usage, WeightFormat,
    Write,
};

#[derive(Debug, Default)]
struct Noop {
    handles: Handles,
}

impl Noop {
    fn numbers(buffer: &Buffer) -> &[f32] {
        buffer.storage::<Vec<f32>>()
    }

    fn numbers_mut(buffer: &mut Buffer) -> &mut [f32] {
        buffer.storage_mut::<Vec<f32>>()
    }
}

impl Device for Noop {
    fn describe(&self) -> String {
        "noop".into()
    }

    fn handles(&self) -> &Handles {
        &self.handles
    }

    fn alloc(&self, len: usize, _: Role) -> Result<Buffer> {
        let mut numbers: Vec<f32> = Vec::new();
        if numbers.try_reserve_exact(len).is_err() {
            return Err(DeviceError::OutOfMemory {
                device: self.describe(),
                needed_bytes: len.saturating_mul(size_of::<f32>()),
            });
        }
        numbers.resize(len, 0.0);
        Ok(Buffer::new(numbers, len))
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()> {
        Self::numbers_mut(to).copy_from_slice(from);
        Ok(())
    }

    fn write_indices(&self, from: &[u32], to: &mut Buffer) -> Result<()> {
        let each = Self::numbers_mut(to).iter_mut().zip(from);
        each.for_each(|(to, &from)| *to = f32::from_bits(from));
        Ok(())
    }

    fn read_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()> {
        to.copy_from_slice(&Self::numbers(from)[start..start + to.len()]);
        Ok(())
    }

    fn read_accumulator(&self, from: &Buffer, to: &mut [f64]) -> Result<()> {
        let each = to.iter_mut().zip(Self::numbers(from));
        each.for_each(|(to, &from)| *to = f64::from(from));
        Ok(())
    }

    fn zero(&self, buffer: &mut Buffer) -> Result<()> {
        Self::numbers_mut(buffer).fill(0.0);
        Ok(())
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        Self::numbers_mut(to).copy_from_slice(Self::numbers(from));
        Ok(())
    }

    fn add(&self, _: &Buffer, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn add_to_rows(&self, _: &Buffer, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn sum_rows(&self, _: &Buffer, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn matmul(&self, _: Matmul<'_>, _: Write, _: Output<'_>) -> Result<()> {
        Ok(())
    }

    fn gelu(&self, _: &Buffer, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn gelu_backward(&self, _: &Buffer, _: &Buffer, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn theta(&self, _: &SiteRef<'_>, _: &mut Buffer, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn theta_backward(
        &self,
        _: &SiteRef<'_>,
        _: &mut Buffer,
        _: &Buffer,
        _: &mut Buffer,
    ) -> Result<()> {
        Ok(())
    }

    fn gather_rows(&self, _: &Buffer, _: &Buffer, _: usize, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn scatter_add_rows(&self, _: &Buffer, _: &Buffer, _: usize, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn layer_norm(
        &self,
        _: &Buffer,
        _: Option<[&Buffer; 2]>,
        _: f32,
        _: usize,
        _: &mut Buffer,
        _: &mut Buffer,
    ) -> Result<()> {
        Ok(())
    }

    fn layer_norm_backward(
        &self,
        _: KeptForNorm<'_>,
        _: &Buffer,
        _: Option<&Buffer>,
        _: &Buffer,
        _: usize,
        _: Write,
        _: &mut Buffer,
    ) -> Result<()> {
        Ok(())
    }

    fn layer_norm_backward_affine(
        &self,
        _: &Buffer,
        _: &Buffer,
        _: &Buffer,
        _: &mut Buffer,
        _: &mut Buffer,
    ) -> Result<()> {
        Ok(())
    }

    fn rotate(&self, _: &RotaryTable, _: RotaryDims, _: bool, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn attention(
        &self,
        _: AttentionDims,
        _: [&Buffer; 3],
        _: &mut Buffer,
        _: Option<&mut Buffer>,
    ) -> Result<()> {
        Ok(())
    }

    fn attention_each(
        &self,
        _: usize,
        _: [&Buffer; 3],
        _: &mut [CachedSequence<'_>],
        _: &mut Buffer,
    ) -> Result<()> {
        Ok(())
    }

    fn attention_backward(
        &self,
        _: AttentionDims,
        _: [&Buffer; 3],
        _: &Buffer,
        _: &Buffer,
        _: &Buffer,
        _: [&mut Buffer; 3],
    ) -> Result<()> {
        Ok(())
    }

    fn scale_rows(&self, _: &Buffer, _: &Buffer, _: Write, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn store_rows(&self, _: &Buffer, _: RowsToStore, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn loss(
        &self,
        _: Head<'_>,
        _: Targets<'_>,
        _: &mut Buffer,
        _: Option<LossGradient<'_>>,
    ) -> Result<()> {
        Ok(())
    }

    fn sum_of_squares(&self, _: &Buffer, _: &mut Buffer, _: usize) -> Result<()> {
        Ok(())
    }

    fn clip_factors(&self, _: &Buffer, _: f64, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn adamw(
        &self,
        _: AdamStep<'_>,
        _: &mut Buffer,
        _: &Buffer,
        _: &mut Buffer,
        _: &mut Buffer,
    ) -> Result<()> {
        Ok(())
    }

    fn lerp(&self, _: f32, _: &Buffer, _: &mut Buffer) -> Result<()> {
        Ok(())
    }
}

fn read(device: &dyn Device, buffer: &Buffer) -> Result<Vec<f32>> {
    let mut numbers = vec![f32::NAN; buffer.len()];
    device.read(buffer, &mut numbers)?;
    Ok(numbers)
}

#[test]
fn operations_are_accepted_and_memory_is_kept() -> Result<()> {
    let device: Arc<dyn Device> = Arc::new(Noop::default());
    let x = device.alloc_from(vec![1.0, 2.0, 3.0], Role::Activation)?;
    let mut y = Temp::new(&device, 3, Role::Activation)?;
    device.copy(&x, &mut y)?;
    device.gelu(&x, &mut y)?;
    let product = Matmul {
        a: Operand::rows(&x, 3),
        b: Operand::rows(&x, 1),
        rows: 1,
        inner: 3,
        cols: 1,
        scale: 1.0,
    };
    device.matmul(product, Write::Add, Output::rows(&mut y, 1))?;
    device.synchronize()?;
    assert_eq!(read(&*device, &y)?, [1.0, 2.0, 3.0]);
    let mut part = [0.0];
    device.read_part(&x, 2, &mut part)?;
    assert_eq!(part, [3.0]);
    // One process has all there is.
    let numbers = vec![1.0, 2.0, 3.0];
    let gathered = Single.begin_gather(0, numbers.clone(), &[3])?.wait()?;
    assert_eq!(gathered, numbers);
    assert!(Single.begin_gather(1, numbers.clone(), &[0, 3]).is_err());
    assert_eq!(Single.begin_all_reduce(numbers.clone())?.wait()?, numbers);
    assert_eq!(Single.broadcast_bytes(b"bytes".to_vec())?, b"bytes");
    Ok(())
}

#[test]
fn temporaries_share_their_handle_and_give_it_back() -> Result<()> {
    let device: Arc<dyn Device> = Arc::new(Noop::default());
    let index = Temp::indices(&device, &[7, 8])?;
    let mut shared = index.share();
    let other = shared.clone();
    assert!(shared.unique().is_none(), "two owners");
    drop(other);
    let only = shared.unique().expect("one owner");
    device.zero(only)?;
    assert_eq!(read(&*device, &shared)?, [0.0; 2]);
    drop(shared);
    assert_eq!(Temp::new(&device, 5, Role::Activation)?.len(), 5);
    Ok(())
}

#[test]
fn what_a_device_does_not_have_is_an_error() -> Result<()> {
    let device = Noop::default();
    assert!(device.fused_site().is_none());
    let error = device.dry_run().expect_err("no dry run").to_string();
    assert_eq!(
        error,
        "noop: a dry run failed: this device does not support it"
    );
    let matrix = PackedMatrix {
        rows: 1,
        cols: 2,
        transposed: true,
    };
    let plain = device.alloc_from(vec![1.0, 2.0], Role::Weight)?;
    let plain = device.pack_weights(plain, matrix, WeightFormat::F32)?;
    assert_eq!(read(&device, &plain)?, [1.0, 2.0]);
    let packed = device.pack_weights(plain, matrix, WeightFormat::Int8);
    assert!(matches!(packed, Err(DeviceError::Failed { .. })));
    let huge = device.alloc(usize::MAX / 2, Role::Weight);
    assert!(matches!(huge, Err(DeviceError::OutOfMemory { .. })));
    Ok(())
}
