//! The operations of devices against those of the plain f64 device: the same calls on both.
//!
//! A [`Suite`] has the devices that must agree; its methods check an operation each, for sizes that the caller chooses.
//! They panic, as tests do.

mod attention;
mod elementwise;
mod loss;
mod optimizer;
mod products;
mod rows;

use std::sync::Arc;
use tokenformer_device::reference::Reference;
use tokenformer_device::{Buffer, Device, Result, Role};

pub use products::Product;

/// What a sequence of operations has read at its end.
pub type Found = Result<Vec<Vec<f32>>>;

/// Devices whose results have the same bits, and are as near to the plain device's as the bars say.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The devices: one with several numbers of threads, or with several orders of them.
    pub devices: Vec<Arc<dyn Device>>,
    /// The least relative error that is allowed: that of a rounding of what flows through the device, or 0 if it computes
    /// in f32.
    pub least_bar: f64,
}

/// The bits of numbers.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// `‖got − want‖ / ‖want‖`, and `max |got − want| / max |want|`.
fn errors(got: &[f32], want: &[f32]) -> [f64; 2] {
    assert_eq!(got.len(), want.len());
    let larger = |m: f64, x: f64| if x > m || x.is_nan() { x } else { m };
    let off = |(g, w): (&f32, &f32)| (f64::from(*g) - f64::from(*w)).abs();
    let (square, absolute) = (|x: f64| x * x, |w: &f32| f64::from(*w).abs());
    let pairs = || got.iter().zip(want).map(off);
    let sum: f64 = pairs().map(square).sum();
    if sum == 0.0 {
        return [0.0; 2];
    }
    let all: f64 = want.iter().map(absolute).map(square).sum();
    let largest = want.iter().map(absolute).fold(0.0, larger);
    [(sum / all).sqrt(), pairs().fold(0.0, larger) / largest]
}

/// Fails unless both errors are within `bar`.
#[track_caller]
fn assert_near(what: &str, got: &[f32], want: &[f32], bar: f64) {
    let [l2, max] = errors(got, want);
    assert!(
        l2 <= bar && max <= bar,
        "{what}: relative errors {l2:.2e} (L2) and {max:.2e} (max)"
    );
}

fn buffer(device: &dyn Device, numbers: &[f32]) -> Result<Buffer> {
    device.alloc_from(numbers.to_vec(), Role::Activation)
}

fn statistics(device: &dyn Device, numbers: &[f32]) -> Result<Buffer> {
    device.alloc_from(numbers.to_vec(), Role::Statistic)
}

fn weights(device: &dyn Device, numbers: &[f32]) -> Result<Buffer> {
    device.alloc_from(numbers.to_vec(), Role::Weight)
}

fn gradients(device: &dyn Device, numbers: &[f32]) -> Result<Buffer> {
    device.alloc_from(numbers.to_vec(), Role::Gradient)
}

fn read(device: &dyn Device, buffer: &Buffer) -> Result<Vec<f32>> {
    let mut numbers = vec![f32::NAN; buffer.len()];
    device.read(buffer, &mut numbers)?;
    Ok(numbers)
}

fn read_all<'b>(device: &dyn Device, buffers: impl IntoIterator<Item = &'b Buffer>) -> Found {
    buffers.into_iter().map(|b| read(device, b)).collect()
}

impl Suite {
    /// Runs the operations on all devices, which must find the same bits, and on the plain one: the devices' results
    /// and the plain one's.
    fn both(&self, run: impl Fn(&Arc<dyn Device>) -> Found) -> [Vec<Vec<f32>>; 2] {
        let plain: Arc<dyn Device> = Reference::new();
        let want = run(&plain).expect("the plain device has memory");
        let mut all = self.devices.iter().map(|device| match run(device) {
            Ok(found) => found,
            Err(error) => panic!("{error}"),
        });
        let first = all.next().expect("a suite of one device or more");
        assert_eq!(first.len(), want.len());
        for other in all {
            for (i, (one, other)) in first.iter().zip(&other).enumerate() {
                assert_eq!(bits(one), bits(other), "result {i} of two devices");
            }
        }
        [first, want]
    }

    /// Fails unless all devices agree with the plain one within a relative error.
    fn agree(&self, what: &str, bar: f64, run: impl Fn(&Arc<dyn Device>) -> Found) {
        let [got, want] = self.both(run);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let bar = bar.max(self.least_bar);
            assert_near(&format!("{what}, result {i}"), got, want, bar);
        }
    }
}
