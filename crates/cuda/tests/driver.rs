//! What is said where something is missing. The tests also pass on a machine that has all of it.
#![cfg(feature = "driver")]

use tokenformer_cuda::SOURCES;
use tokenformer_cuda::driver::{Driver, Found, OpenError, Options, Version, compile};

#[test]
fn looking_does_not_fail() {
    let found = Found::look();
    let names: Vec<String> = found.rows().into_iter().map(|(name, _)| name).collect();
    for name in ["driver", "NVRTC", "cuBLASLt"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
        assert!(found.to_string().contains(&format!("{name}: ")), "{found}");
    }
    let missing = found.to_string().contains("driver: not found");
    assert_eq!(missing, found.driver.is_none());
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_that_helps() {
    const INDEX: usize = 4096;
    let found = Found::look();
    let options = Options {
        index: INDEX,
        ..Options::default()
    };
    let error = Driver::with(options).unwrap_err();
    let as_expected = match &error {
        OpenError::NoDriver => found.driver.is_none(),
        OpenError::Driver { reason } => found.driver_problem.as_ref() == Some(reason),
        OpenError::NoDevice { index, count } => (*index, *count) == (INDEX, found.devices.len()),
        OpenError::OldDriver { got, .. } => Some(*got) == found.driver,
        _ => false,
    };
    assert!(as_expected, "{error:?}, but {found:?}");
    let text = error.to_string();
    assert!(text.contains("help:"), "{text}");
    // The same in a line.
    let short = Driver::open(INDEX).unwrap_err().to_string();
    assert!(short.starts_with("opening GPU 4096: "), "{short}");
    assert!(
        !short.contains('\n') && text.contains(short.split(": ").nth(1).unwrap()),
        "{short}"
    );
}

#[test]
fn kernels_compile_or_the_compiler_is_missing() {
    for source in SOURCES {
        match (compile(source, Version(8, 0), &[]), Found::look().compiler) {
            (Ok(compiled), Some(_)) => assert!(!compiled.code.is_empty()),
            (Err(error @ OpenError::NoCompiler), None) => {
                let text = error.to_string();
                assert!(
                    text.contains("libnvrtc") && text.contains("help:"),
                    "{text}"
                );
            }
            (other, compiler) => panic!("{}: {other:?} with compiler {compiler:?}", source.name),
        }
    }
}
