//! The level of vector instructions does not change a bit of any output.

mod common;

use common::bits;
use common::suite::every_kernel;
use tokenformer_cpu::simd::{Level, detected, level, set_level};

// One test: the level belongs to the whole process.
#[test]
fn same_bits_at_every_level() {
    let widest = set_level(Level::Avx512);
    assert_eq!(widest, detected());
    let want = every_kernel(2);
    for wanted in [Level::Avx2, Level::Baseline] {
        let got = set_level(wanted);
        assert_eq!((got, level()), (wanted.min(detected()), got));
        for (want, got) in want.iter().zip(every_kernel(2)) {
            let same = bits(&want.numbers) == bits(&got.numbers);
            assert!(same, "{} at {}", want.name, wanted.name());
        }
    }
    set_level(widest);
}
