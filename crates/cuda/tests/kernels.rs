//! Kernels launched by name on the emulator.
#![cfg(feature = "emulator")]

use tokenformer_cuda::{Arg, Emulated, Gpu, Launch};

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
