//! The level of vector instructions does not change a bit, where the loops are ours. General matrix
//! products choose their instructions themselves, so kernels that contain one are compared with a
//! tolerance.

mod common;

use common::suite::every_kernel;
use common::{assert_near, bits, widen};
use tokenformer_kernels::simd::{Level, detected, level, set_level};

// One test: the level belongs to the whole process.
#[test]
fn same_results_at_every_level() {
    let widest = set_level(Level::Avx512);
    assert_eq!(widest, detected());
    let want = every_kernel(2);
    for wanted in [Level::Avx2, Level::Baseline] {
        let got = set_level(wanted);
        assert_eq!((got, level()), (wanted.min(detected()), got));
        for (want, got) in want.iter().zip(every_kernel(2)) {
            let what = format!("{} at {}", want.name, wanted.name());
            if want.has_product {
                assert_near(&what, &got.numbers, &widen(&want.numbers), 2e-5);
            } else {
                assert!(bits(&want.numbers) == bits(&got.numbers), "{what}");
            }
        }
    }
    set_level(widest);
}
