//! Metrics and standard errors against numbers computed elsewhere.

use tokenformer_tasks::metrics::{argmax, mean, mean_stderr, perplexity, perplexity_stderr};

fn close(got: f64, want: f64) {
    assert!(
        (got - want).abs() <= 1e-12 * want.abs(),
        "{got} is not {want}"
    );
}

#[test]
fn accuracy_has_the_error_of_a_mean() {
    // lm-eval 0.4.13: mean_stderr([1, 0, 0, 1, 1]).
    let hits = [1.0, 0.0, 0.0, 1.0, 1.0];
    close(mean(&hits), 0.6);
    close(mean_stderr(&hits).unwrap(), 0.24494897427831783);
    assert_eq!(mean_stderr(&[1.0, 1.0, 1.0]), Some(0.0));
    assert_eq!((mean_stderr(&[]), mean_stderr(&[0.0])), (None, None));
}

#[test]
fn perplexity_has_the_bootstrap_error_of_lm_eval() {
    // lm-eval 0.4.13: perplexity(xs), bootstrap_stderr(perplexity, xs, iters=100000).
    let logliks = [-1.5, -0.25, -3.0, -7.125, -2.0];
    close(perplexity(&logliks), 16.03862699565567);
    close(perplexity_stderr(&logliks).unwrap(), 51.75351553671791);
    assert_eq!(perplexity_stderr(&[-1.0]), None);
}

#[test]
fn the_first_of_equals_wins() {
    assert_eq!(argmax([-3.0, -1.0, -1.0]), 1);
    assert_eq!(argmax([f64::NEG_INFINITY, -1e300]), 1);
    assert_eq!(argmax([f64::NEG_INFINITY; 2]), 0);
    assert_eq!(argmax([]), 0);
}
