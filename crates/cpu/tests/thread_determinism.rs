//! The number of threads does not change a bit of any output.

mod common;

use common::bits;
use common::suite::every_kernel;

#[test]
fn same_bits_for_any_number_of_threads() {
    let one = every_kernel(1);
    for threads in [2, 3] {
        for (one, many) in one.iter().zip(every_kernel(threads)) {
            assert_eq!(one.name, many.name);
            assert!(
                one.numbers.iter().any(|x| *x != 0.0),
                "{}: only zeros",
                one.name
            );
            assert!(
                one.numbers.iter().all(|x| !x.is_nan()),
                "{}: not a number",
                one.name
            );
            assert!(
                bits(&one.numbers) == bits(&many.numbers),
                "{} with {threads} threads",
                one.name
            );
        }
    }
}

#[test]
fn same_bits_when_repeated() {
    for (first, second) in every_kernel(2).iter().zip(every_kernel(2)) {
        assert!(
            bits(&first.numbers) == bits(&second.numbers),
            "{}",
            first.name
        );
    }
}
