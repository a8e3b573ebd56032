//! Kernels launched by name on the emulator.
#![cfg(feature = "emulator")]

use std::sync::Arc;
use tokenformer_cuda::{
    Address, Arg, Cuda, Emulated, Factor, Gemm, Gpu, Launch, Number, Planned, gemm,
};
use tokenformer_device::{AttentionDims, Device, Precision, Role};

fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

#[test]
fn a_kernel_is_launched_by_name() {
    for seed in 0..3 {
        let gpu = match Emulated::new(seed) {
            Ok(gpu) => gpu,
            Err(error) => return println!("skipped: {error}"),
        };
        let (x, y) = (gpu.alloc(12).unwrap(), gpu.alloc(12).unwrap());
        let launch = |n, args: &[Arg]| {
            let launch = Launch {
                kernel: "add_f32",
                grid: [n, 1, 1],
                block: [32, 1, 1],
                shared: 0,
                args,
            };
            // SAFETY: the arguments are what the kernel takes, or refused.
            unsafe { gpu.launch(&launch) }
        };
        let mut out = [0u8; 12];
        // SAFETY: both hold 12 bytes.
        unsafe {
            gpu.upload(&bytes(&[1.0, 2.0, 3.0]), x).unwrap();
            gpu.upload(&bytes(&[10.0, 20.0, 30.0]), y).unwrap();
            launch(1, &[Arg::Pointer(x), Arg::Pointer(y), Arg::U64(3)]).unwrap();
            gpu.download(y, &mut out).unwrap();
        }
        assert_eq!(out.to_vec(), bytes(&[11.0, 22.0, 33.0]));
        assert!(launch(1, &[Arg::Pointer(x), Arg::Pointer(y)]).is_err());
        assert!(launch(1, &[Arg::Pointer(x), Arg::Pointer(y), Arg::U32(3)]).is_err());
        let beyond = launch(1, &[Arg::Pointer(x), Arg::Pointer(y), Arg::U64(4)]).unwrap_err();
        assert!(beyond.to_string().contains("beyond the end"), "{beyond}");
    }
}

/// As on a GPU, the second and third axis of a grid end at 65535 blocks.
#[test]
fn grids_have_limits() {
    let gpu = match Emulated::new(0) {
        Ok(gpu) => gpu,
        Err(error) => return println!("skipped: {error}"),
    };
    let (x, y) = (gpu.alloc(4).unwrap(), gpu.alloc(4).unwrap());
    let args = [Arg::Pointer(x), Arg::Pointer(y), Arg::U64(1)];
    for grid in [[1, 65_536, 1], [1, 1, 65_536], [1 << 31, 1, 1], [1, 0, 1]] {
        let launch = Launch {
            kernel: "add_f32",
            grid,
            block: [32, 1, 1],
            shared: 0,
            args: &args,
        };
        // SAFETY: the arguments are what the kernel takes.
        let error = unsafe { gpu.launch(&launch) }.unwrap_err();
        assert!(error.to_string().contains("65535"), "{error}");
    }
}

/// Many rows and many sequences have grids that every driver accepts: those of a GPU that computes nothing.
#[test]
fn large_operations_have_possible_grids() {
    let gpu = Planned::new("a GPU", usize::MAX / 2);
    for number in [Number::F32, Number::Bf16] {
        for (m, n) in [(1 << 21, 64), (64, 1 << 21), (9_000_000, 8)] {
            let factor = |transposed| Factor {
                at: Address(256),
                number,
                row_stride: if transposed { n } else { 64 },
                transposed,
                batch_stride: 0,
            };
            let product = Gemm {
                m,
                n,
                k: 64,
                a: factor(false),
                b: factor(true),
                c: Address(256),
                c_number: Number::F32,
                c_row_stride: n,
                c_batch_stride: 0,
                alpha: 1.0,
                beta: 0.0,
                batch: 1,
            };
            // SAFETY: nothing is read.
            unsafe { gemm::multiply(&gpu, &product) }.unwrap_or_else(|error| panic!("{error}"));
        }
    }
    for precision in Precision::ALL {
        let gpu = Arc::new(Planned::new("a GPU", usize::MAX / 2));
        let device: Arc<dyn Device> = Cuda::new(gpu, precision);
        for (batch, heads, channels) in [(70_000, 2, 4), (70_000, 2, 32), (1, 70_000, 1)] {
            let dims = AttentionDims {
                batch,
                queries: 3,
                keys: 3,
                key_stride: 3,
                heads,
                channels,
                causal: true,
            };
            let rows = || {
                device
                    .alloc(batch * 3 * dims.width(), Role::Activation)
                    .unwrap()
            };
            let sums = || device.alloc(dims.stats_len(), Role::Statistic).unwrap();
            let ([q, k, v, mut o], mut log_sums) = ([(); 4].map(|()| rows()), sums());
            let qkv = [&q, &k, &v];
            device
                .attention(dims, qkv, &mut o, Some(&mut log_sums))
                .unwrap();
            let [d_o, mut dq, mut dk, mut dv] = [(); 4].map(|()| rows());
            let d_qkv = [&mut dq, &mut dk, &mut dv];
            device
                .attention_backward(dims, qkv, &o, &log_sums, &d_o, d_qkv)
                .unwrap();
        }
    }
}
