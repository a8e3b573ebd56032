//! How the next token is chosen.

use tokenformer_core::Error;
use tokenformer_core::generate::{Sampler, Sampling};

fn plain() -> Sampling {
    Sampling {
        repetition_penalty: 1.0,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 1,
    }
}

/// How often each token is chosen.
fn counts(settings: Sampling, logits: &[f32], seen: &[u32], draws: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(settings).unwrap();
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        counts[sampler.choose(logits, seen) as usize] += 1;
    }
    counts
}

/// Which tokens are chosen at all.
fn support(settings: Sampling, logits: &[f32]) -> Vec<usize> {
    let counts = counts(settings, logits, &[], 4000);
    (0..logits.len()).filter(|&i| counts[i] > 0).collect()
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let e: Vec<f64> = logits
        .iter()
        .map(|l| (f64::from(*l) / temperature).exp())
        .collect();
    e.iter().map(|x| x / e.iter().sum::<f64>()).collect()
}

#[track_caller]
fn follows(counts: &[usize], probabilities: &[f64]) {
    let n = counts.iter().sum::<usize>() as f64;
    for (token, (&count, &p)) in counts.iter().zip(probabilities).enumerate() {
        // Five standard deviations.
        let bar = 5.0 * (n * p * (1.0 - p)).sqrt();
        assert!(
            (count as f64 - n * p).abs() <= bar,
            "token {token}: {count} of {n} is not {p}"
        );
    }
}

const LOGITS: [f32; 6] = [1.0, -0.5, 2.0, 0.0, 1.5, -3.0];

#[test]
fn the_distribution_is_the_softmax() {
    for temperature in [0.5, 1.0, 2.0] {
        let settings = Sampling {
            temperature,
            ..plain()
        };
        follows(
            &counts(settings, &LOGITS, &[], 50_000),
            &softmax(&LOGITS, f64::from(temperature)),
        );
    }
}

#[test]
fn what_is_cut_off_is_shared_among_the_rest() {
    let kept = Sampling {
        top_k: 3,
        ..plain()
    };
    let p = softmax(&LOGITS, 1.0);
    let mass = p[2] + p[4] + p[0];
    let want = [p[0] / mass, 0.0, p[2] / mass, 0.0, p[4] / mass, 0.0];
    follows(&counts(kept, &LOGITS, &[], 50_000), &want);
}

#[test]
fn greedy_takes_the_likeliest() {
    let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
    assert_eq!(sampler.choose(&LOGITS, &[]), 2);
    assert_eq!(sampler.choose(&[-5.0, -4.0, f32::NEG_INFINITY], &[]), 1);
    assert_eq!(sampler.choose(&[7.0], &[]), 0);
}

#[test]
fn ties_go_to_the_lower_number() {
    let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
    assert_eq!(sampler.choose(&[0.0, 3.0, 3.0, 3.0], &[]), 1);
    assert_eq!(
        support(
            Sampling {
                top_k: 2,
                ..plain()
            },
            &[0.0, 3.0, 3.0, 3.0]
        ),
        [1, 2]
    );
    assert_eq!(
        support(
            Sampling {
                top_p: 0.35,
                ..plain()
            },
            &[1.0; 5]
        ),
        [0, 1]
    );
}

#[test]
fn top_k_keeps_k() {
    assert_eq!(
        support(
            Sampling {
                top_k: 1,
                ..plain()
            },
            &LOGITS
        ),
        [2]
    );
    assert_eq!(
        support(
            Sampling {
                top_k: 2,
                ..plain()
            },
            &LOGITS
        ),
        [2, 4]
    );
    assert_eq!(
        support(
            Sampling {
                top_k: 100,
                ..plain()
            },
            &LOGITS
        ),
        [0, 1, 2, 3, 4, 5]
    );
    assert_eq!(
        support(
            Sampling {
                top_k: 0,
                ..plain()
            },
            &LOGITS
        ),
        [0, 1, 2, 3, 4, 5]
    );
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it() {
    // Probabilities 0.5, 0.3, 0.15, 0.05.
    let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
    for (top_p, want) in [
        (0.01, 1),
        (0.49, 1),
        (0.51, 2),
        (0.79, 2),
        (0.81, 3),
        (0.94, 3),
        (0.96, 4),
        (1.0, 4),
    ] {
        let found = support(Sampling { top_p, ..plain() }, &logits);
        assert_eq!(found, (0..want).collect::<Vec<_>>(), "top_p {top_p}");
    }
}

#[test]
fn min_p_drops_the_unlikely() {
    let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
    for (min_p, want) in [
        (0.0, 4),
        (0.09, 4),
        (0.11, 3),
        (0.29, 3),
        (0.31, 2),
        (0.59, 2),
        (0.61, 1),
        (0.99, 1),
    ] {
        let found = support(Sampling { min_p, ..plain() }, &logits);
        assert_eq!(found, (0..want).collect::<Vec<_>>(), "min_p {min_p}");
    }
}

#[test]
fn temperature_comes_before_the_cuts() {
    let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
    // At temperature 0.5 the shares of the likeliest are 1, 0.36, 0.09, 0.01.
    let settings = Sampling {
        temperature: 0.5,
        min_p: 0.2,
        ..plain()
    };
    assert_eq!(support(settings, &logits), [0, 1]);
    let settings = Sampling {
        temperature: 0.5,
        top_p: 0.6,
        ..plain()
    };
    assert_eq!(support(settings, &logits), [0]);
}

#[test]
fn repetition_is_penalised() {
    let settings = Sampling {
        repetition_penalty: 2.0,
        ..Sampling::greedy()
    };
    let mut sampler = Sampler::new(settings).unwrap();
    assert_eq!(sampler.choose(&[2.0, 1.5, 0.0], &[]), 0);
    assert_eq!(sampler.choose(&[2.0, 1.5, 0.0], &[0]), 1);
    // Once, however often a token occurred; and tokens beyond the vocabulary are nothing to fear.
    assert_eq!(sampler.choose(&[3.5, 1.5, 0.0], &[0, 0, 0, 99]), 0);
    // Negative logits go down, not up.
    assert_eq!(sampler.choose(&[-1.0, -1.5], &[0]), 1);
}

#[test]
fn the_seed_decides() {
    let draw = |seed| {
        let mut sampler = Sampler::new(Sampling { seed, ..plain() }).unwrap();
        (0..50)
            .map(|_| sampler.choose(&LOGITS, &[]))
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn numbers_that_are_not_finite_choose_a_token_all_the_same() {
    for temperature in [0.0, 1.0] {
        let settings = Sampling {
            temperature,
            top_k: 2,
            top_p: 0.9,
            min_p: 0.1,
            ..plain()
        };
        let mut sampler = Sampler::new(settings).unwrap();
        assert_eq!(
            sampler.choose(&[1.0, f32::NEG_INFINITY, f32::NEG_INFINITY], &[]),
            0
        );
        for logits in [
            [f32::NAN; 3],
            [f32::INFINITY; 3],
            [f32::NEG_INFINITY; 3],
            [1.0, f32::NAN, 2.0],
        ] {
            assert!(
                sampler.choose(&logits, &[0]) < 3,
                "{logits:?} at {temperature}"
            );
        }
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let bad = [
        (
            "temperature",
            Sampling {
                temperature: -0.1,
                ..plain()
            },
        ),
        (
            "temperature",
            Sampling {
                temperature: f32::NAN,
                ..plain()
            },
        ),
        (
            "temperature",
            Sampling {
                temperature: f32::INFINITY,
                ..plain()
            },
        ),
        (
            "top_p",
            Sampling {
                top_p: 0.0,
                ..plain()
            },
        ),
        (
            "top_p",
            Sampling {
                top_p: 1.1,
                ..plain()
            },
        ),
        (
            "min_p",
            Sampling {
                min_p: 1.0,
                ..plain()
            },
        ),
        (
            "min_p",
            Sampling {
                min_p: -0.1,
                ..plain()
            },
        ),
        (
            "repetition_penalty",
            Sampling {
                repetition_penalty: 0.0,
                ..plain()
            },
        ),
    ];
    for (name, settings) in bad {
        match Sampler::new(settings) {
            Err(Error::Config { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(Sampling::default().validate().is_ok());
}

/// The rule as it is written down: everything in order, then cut.
fn by_sorting(settings: &Sampling, logits: &[f32], draw: f64) -> u32 {
    let mut all: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    if settings.top_k > 0 {
        all.truncate(settings.top_k);
    }
    let max = all[0].0;
    let p: Vec<f64> = (all.iter())
        .map(|(l, _)| f64::from(((l - max) / settings.temperature).exp()))
        .collect();
    let total: f64 = p.iter().sum();
    let (mut kept, mut mass) = (0, 0.0);
    while kept < p.len()
        && (kept == 0
            || (mass < f64::from(settings.top_p) * total && p[kept] as f32 >= settings.min_p))
    {
        mass += p[kept];
        kept += 1;
    }
    let mut at = draw * mass;
    for (p, (_, token)) in p[..kept].iter().zip(&all) {
        at -= p;
        if at < 0.0 {
            return *token;
        }
    }
    all[kept - 1].1
}

#[test]
fn ordering_a_few_tokens_gives_what_ordering_all_gives() {
    use rand::Rng;
    // Coarse logits: ties abound. More tokens than are put in order at first.
    let logits: Vec<f32> = (0..3000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as f32 / 16.0)
        .collect();
    for (temperature, top_k, top_p, min_p) in [
        (0.8, 0, 0.95, 0.0),
        (1.0, 0, 1.0, 0.0),
        (3.0, 0, 0.9, 0.0),
        (3.0, 700, 0.99, 0.0),
        (2.0, 0, 1.0, 0.05),
        (2.0, 0, 0.7, 0.05),
        (0.05, 0, 0.5, 0.0),
    ] {
        let settings = Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..plain()
        };
        let mut sampler = Sampler::new(settings.clone()).unwrap();
        let mut rng = tokenformer_core::init::stream(settings.seed, "sampling");
        for _ in 0..50 {
            let draw = rng.next_u64() as f64 / (u64::MAX as f64 + 1.0);
            let want = by_sorting(&settings, &logits, draw);
            assert_eq!(sampler.choose(&logits, &[]), want, "{settings:?}");
        }
    }
}

#[test]
fn a_bias_comes_before_everything_else() {
    let logits = [1.0, 3.0, 2.0, -1.0];
    let greedy = |bias: &[(u32, f32)], repetition_penalty, seen: &[u32]| {
        let settings = Sampling {
            repetition_penalty,
            ..Sampling::greedy()
        };
        let sampler = Sampler::new(settings).unwrap();
        sampler.with_bias(bias.to_vec()).choose(&logits, seen)
    };
    assert_eq!(greedy(&[], 1.0, &[]), 1);
    assert_eq!(greedy(&[(3, 4.5)], 1.0, &[]), 3);
    assert_eq!(greedy(&[(1, -100.0)], 1.0, &[]), 2);
    // A penalty of 2 halves the biased 3.5 of token 3, not its own logit.
    assert_eq!(greedy(&[(3, 4.5)], 2.0, &[3]), 1);
    // A token that the vocabulary does not have changes nothing.
    assert_eq!(greedy(&[(4, 100.0), (u32::MAX, 100.0)], 1.0, &[]), 1);
}
