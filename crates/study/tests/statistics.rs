//! Statistics against values of scipy 1.x, and by hand.

use tokenformer_study::stats::{
    Beyond, Contrast, Curve, Losses, Table, cdf, error_of_mean, holm, quantile, rank_correlation,
};
use tokenformer_testing::Random;

fn near(got: f64, expected: f64, tolerance: f64) {
    let error = (got - expected).abs() / expected.abs().max(1e-12);
    assert!(error <= tolerance, "{got} instead of {expected}");
}

#[test]
fn student_has_the_values_of_scipy() {
    for (p, freedom, expected) in [
        (0.975, 1.0, 12.706204736174694),
        (0.975, 2.0, 4.302652729749462),
        (0.975, 6.0, 2.4469118511449786),
        (0.95, 14.0, 1.761310135774891),
        (0.995, 30.0, 2.7499956535672254),
        (0.025, 4.0, -2.7764451051977943),
    ] {
        near(quantile(p, freedom), expected, 1e-9);
    }
    for (t, freedom, expected) in [
        (0.5, 3.0, 0.6742760175759245),
        (-2.0, 5.0, 0.050969739414929174),
        (4.303, 2.0, 0.9750037375073928),
        (-10.0, 1.0, 0.03172551743055357),
        (1.3, 40.5, 0.8995243756007125),
    ] {
        near(cdf(t, freedom), expected, 1e-10);
    }
}

fn table() -> Table {
    let row = |name: &str, losses: [f64; 3]| (name.to_string(), losses.map(Some).to_vec());
    Table::new([
        row("a", [3.40, 3.42, 3.37]),
        row("b", [3.45, 3.46, 3.44]),
        row("c", [3.50, 3.55, 3.49]),
        row("d", [3.38, 3.41, 3.36]),
    ])
}

#[test]
fn a_paired_difference_has_the_pooled_error() {
    let contrast = table().contrast("a - b".into(), "a", "b").unwrap();
    near(contrast.difference, -0.05333333333333338, 1e-12);
    near(contrast.error, 0.008713548411865588, 1e-10);
    assert_eq!(contrast.freedom, 6.0);
    near(contrast.p, 0.0008685756264937266, 1e-8);
    near(contrast.interval[0], -0.0746546182078528, 1e-9);
    near(contrast.interval[1], -0.03201204845881396, 1e-9);
    near(contrast.equality_p(0.06), 0.23661327687252537, 1e-8);
    assert!(!contrast.is_equal_within(0.06) && contrast.is_equal_within(0.08));
}

/// Of two rows the error is that of the paired differences, as scipy's `ttest_rel` has it.
#[test]
fn two_rows_have_the_error_of_their_differences() {
    let two = table().among(|row| row == "a" || row == "b");
    let contrast = two.contrast("a - b".into(), "a", "b").unwrap();
    let (error, freedom) = error_of_mean(&[-0.05, -0.04, -0.07]).unwrap();
    near(contrast.error, error, 1e-9);
    near(error, 0.008819171036881972, 1e-9);
    assert_eq!((contrast.freedom, freedom), (2.0, 2.0));
    near(contrast.p, 0.026271008879704683, 1e-8);
    assert_eq!(error_of_mean(&[1.0]), None);
}

/// Two families of three arms, whose bases scatter more than the arms that grew from them, and no difference at all.
#[test]
fn a_difference_between_families_needs_the_error_of_its_own_seeds() {
    const DRAWS: usize = 4_000;
    let mut random = Random::new(7);
    let mut held = [0; 2];
    for _ in 0..DRAWS {
        let mut family = |name: &str| -> Vec<(String, Vec<Option<f64>>)> {
            let base = random.normals(3, 1.0);
            let mut arm = |n: usize| {
                let own = random.normals(3, 0.3);
                let losses = base.iter().zip(&own).map(|(b, o)| Some(f64::from(b + o)));
                (format!("{name}{n}"), losses.collect())
            };
            (0..3).map(&mut arm).collect()
        };
        let table = Table::new([family("t"), family("g")].concat());
        let two = table.among(|row| row == "t0" || row == "g0");
        for (held, table) in held.iter_mut().zip([&table, &two]) {
            let contrast = table.contrast("none".into(), "t0", "g0").unwrap();
            let [low, high] = contrast.interval;
            *held += usize::from((low..=high).contains(&0.0));
        }
    }
    let [pooled, own] = held.map(|held| held as f64 / DRAWS as f64);
    assert!((own - 0.95).abs() < 0.015, "{own}");
    assert!(pooled < 0.85, "{pooled}");
}

#[test]
fn differences_that_all_seeds_share_leave_no_error() {
    // By hand: every arm moves by the same from seed to seed, so nothing is left.
    let row = |name: &str, base: f64| {
        (
            name.to_string(),
            vec![Some(base), Some(base + 0.5), Some(base - 0.25)],
        )
    };
    let table = Table::new([row("a", 3.0), row("b", 2.0)]);
    let (error, freedom) = table.error().unwrap();
    assert!(error < 1e-12 && freedom == 2.0, "{error}");
    // Rows with a hole, or a run that diverged, are left out; one arm or one seed has no error.
    let hole = Table::new([
        row("a", 3.0),
        ("b".into(), vec![Some(1.0), None, Some(f64::INFINITY)]),
    ]);
    assert_eq!(hole.rows().len(), 1);
    assert_eq!(hole.error(), None);
    let single = Table::new([("a".into(), vec![Some(1.0)]), ("b".into(), vec![Some(2.0)])]);
    assert_eq!(single.error(), None);
}

/// Of an unfinished study: `a`, `b` and `c` are the first columns of [`table`], and a third seed has only begun.
#[test]
fn a_difference_is_over_the_seeds_that_both_have() {
    let row = |name: &str, losses: [Option<f64>; 3]| (name.to_string(), losses.to_vec());
    let losses = Losses::new([
        row("a", [Some(3.40), Some(3.42), Some(3.37)]),
        row("b", [Some(3.45), Some(3.46), None]),
        row("c", [Some(3.50), Some(3.55), Some(3.49)]),
        row("one", [None, Some(3.0), None]),
        row("diverged", [Some(3.0), Some(3.0), Some(f64::INFINITY)]),
    ]);
    let all = |arm: &str, reference: &str| losses.contrast("x".into(), arm, reference, |_| true);
    // Two seeds of a, b, c and of the arm that diverged with the third: (4 - 1)·(2 - 1).
    let contrast = all("a", "b").unwrap();
    assert_eq!((contrast.seeds, contrast.freedom), (2, 3.0));
    near(contrast.difference, -0.045, 1e-9);
    near(losses.difference("a", "b").unwrap(), -0.045, 1e-9);
    // By hand, of three seeds of a and c alone.
    let contrast = losses
        .contrast("x".into(), "a", "c", |row| row != "b")
        .unwrap();
    assert_eq!((contrast.seeds, contrast.freedom), (3, 2.0));
    let (error, _) = error_of_mean(&[-0.10, -0.13, -0.12]).unwrap();
    near(contrast.error, error, 1e-9);
    // One seed is too few, and what diverged is not judged by what is left of it.
    assert_eq!(all("a", "one"), None);
    assert_eq!(all("a", "diverged"), None);
    assert_eq!(losses.difference("a", "one"), None);
    // Three seeds of two arms give as many degrees of freedom as two seeds of three.
    let (_, freedom) = losses.error(|row| row != "diverged").unwrap();
    assert_eq!(freedom, 2.0);
    assert_eq!(Losses::default().error(|_| true), None);
}

#[test]
fn holm_multiplies_by_the_tests_that_are_left() {
    let with_p = |p: f64| Contrast {
        p,
        ..Contrast::new("x".into(), 2, 1.0, 1.0, 5.0)
    };
    let mut contrasts = [0.01, 0.04, 0.03, 0.005].map(with_p);
    holm(&mut contrasts);
    // 4·0.005, 3·0.01, 2·0.03, then 0.04 is not below the one before it.
    let corrected = contrasts.map(|c| c.p_corrected);
    for (got, expected) in corrected.into_iter().zip([0.03, 0.06, 0.06, 0.02]) {
        near(got, expected, 1e-12);
    }
    let mut large = [0.9, 0.8].map(with_p);
    holm(&mut large);
    assert!(large.iter().all(|c| c.p_corrected == 1.0));
}

#[test]
fn a_curve_is_the_monotone_cubic_of_scipy() {
    let points = [(1.0, 4.0), (2.0, 3.1), (5.0, 2.6), (9.0, 2.55), (30.0, 2.2)];
    let curve = Curve::new(&points).unwrap();
    for (cost, loss, fall) in [
        (1.5, 3.4001719920212086, 1.2707291704552277),
        (3.0, 2.8082123151219265, 0.623103392692168),
        (7.0, 2.5712078681722863, 0.062015860418353635),
        (20.0, 2.3576261510032923, 0.34537173418376993),
    ] {
        near(curve.at(cost).unwrap(), loss, 1e-10);
        near(curve.fall(cost), fall, 1e-9);
    }
    near(curve.cost_of(2.8).unwrap(), 3.0400775266337274, 1e-9);
    assert_eq!(curve.cost_of(4.5), Err(Beyond::Below(1.0)));
    let Err(Beyond::Above(cost)) = curve.cost_of(2.1) else {
        panic!("not beyond");
    };
    near(cost, 30.0, 1e-12);
    assert_eq!(curve.at(0.5), None);
    near(curve.at(1e9).unwrap(), 2.2, 1e-12);
}

#[test]
fn a_curve_never_rises() {
    // The run of cost 4 was worse than that of cost 2: for cost 4 the shorter run counts.
    let curve = Curve::new(&[(1.0, 3.0), (2.0, 2.5), (4.0, 2.7), (8.0, 2.0)]).unwrap();
    near(curve.at(4.0).unwrap(), 2.5, 1e-12);
    assert!(Curve::new(&[(1.0, 3.0)]).is_none());
    assert!(Curve::new(&[(1.0, 3.0), (1.0, 2.0)]).is_none());
}

#[test]
fn ranks_correlate_as_in_scipy() {
    let pairs = [(1.0, 5.0), (2.0, 6.0), (3.0, 7.0), (4.0, 8.0), (5.0, 7.0)];
    near(rank_correlation(&pairs).unwrap(), 0.8207826816681233, 1e-12);
    assert_eq!(rank_correlation(&pairs[..2]), None);
    assert_eq!(
        rank_correlation(&[(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]),
        None
    );
}
