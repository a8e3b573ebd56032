//! The program on a machine without a GPU, and with wrong arguments.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    let folder = std::env::temp_dir();
    Command::new(env!("CARGO_BIN_EXE_gpu-check"))
        .args(args)
        .current_dir(folder)
        // No GPU is visible, also where there is one.
        .env("CUDA_VISIBLE_DEVICES", "-1")
        .output()
        .unwrap()
}

#[test]
fn what_is_missing_is_said() {
    let output = run(&[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for library in ["driver:", "NVRTC:", "cuBLASLt:"] {
        assert!(text.contains(library), "{text}");
    }
    assert!(
        errors.starts_with("error: ") && errors.contains("help:"),
        "{errors}"
    );
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn wrong_arguments_are_refused() {
    for args in [
        &["--gpu"][..],
        &["--gpu", "first"],
        &["--fast"],
        &["--seed", "-1"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
