//! Numbers from outside: an independent PyTorch implementation's outputs and gradients, and a few vectors
//! worked out by hand.

mod common;

use common::{exec, l2_error, max_error, widen};
use std::path::{Path, PathBuf};
use tokenformer_cpu::pattention::{Saved, Segment, SegmentGrad, Site, backward, forward};
use tokenformer_cpu::rotary;
use tokenformer_device::Write;
use tokenformer_device::reference;
use tokenformer_device::{NormSpan, RotaryDims, RotaryTable, SiteDims, Theta};
use tokenformer_store::SafetensorsFile;

/// The golden numbers were made without one; this is what models use.
const EPS: f32 = 1e-6;

struct Golden {
    name: String,
    theta: Theta,
    tau: f64,
    dims: SiteDims,
    tokens: usize,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

fn golden() -> (Vec<Golden>, SafetensorsFile) {
    let text = std::fs::read_to_string(fixture("pattention.json")).unwrap();
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let size = |case: &serde_json::Value, key: &str| case[key].as_u64().unwrap() as usize;
    let cases = list.iter().map(|case| Golden {
        name: case["name"].as_str().unwrap().into(),
        theta: match case["theta"].as_str().unwrap() {
            "l2_norm_gelu" => Theta::L2NormGelu,
            "gelu_l2_norm" => Theta::GeluL2Norm,
            "softmax" => Theta::Softmax,
            other => panic!("unknown theta {other}"),
        },
        tau: case["tau"].as_f64().unwrap(),
        dims: SiteDims {
            rows: size(case, "rows"),
            d_in: size(case, "d_in"),
            d_out: size(case, "d_out"),
        },
        tokens: size(case, "n"),
    });
    (
        cases.collect(),
        SafetensorsFile::open(&fixture("pattention.safetensors")).unwrap(),
    )
}

/// Output and gradients by the fast kernels.
fn fast(case: &Golden, norm: NormSpan, [x, key, value, dy]: [&[f32]; 4]) -> [Vec<f32>; 4] {
    let SiteDims { rows, d_in, d_out } = case.dims;
    let n = case.tokens;
    let [mut y, mut dx] = [rows * d_out, rows * d_in].map(|len| vec![f32::NAN; len]);
    let [mut dkey, mut dvalue] = [n * d_in, n * d_out].map(|len| vec![0.0; len]);
    let [mut scores, mut work, mut stats] =
        [rows * n, rows * n, rows].map(|len| vec![f32::NAN; len]);
    let segments = [Segment {
        keys: key,
        values: value,
        tokens: n,
        tau: case.tau as f32,
    }];
    let site = Site {
        theta: case.theta,
        norm,
        tau: case.tau as f32,
        eps: EPS,
        segments: &segments,
    };
    exec(2, |exec| {
        let saved = Saved {
            scores: &mut scores,
            stats: &mut stats,
        };
        forward::<f32>(exec, &site, x, &mut y, case.dims, Some(saved));
        let saved = Saved {
            scores: &mut scores,
            stats: &mut stats,
        };
        let mut grads = [Some(SegmentGrad {
            keys: &mut dkey,
            values: &mut dvalue,
        })];
        let dx = Some((&mut dx[..], Write::Replace));
        backward::<f32>(
            exec, &site, x, dy, case.dims, saved, &mut work, dx, &mut grads,
        );
    });
    [y, dx, dkey, dvalue]
}

/// The same by the plain ones, rounded at the end.
fn plain(case: &Golden, norm: NormSpan, inputs: [&[f32]; 4]) -> [Vec<f32>; 4] {
    let [x, key, value, dy] = inputs.map(widen);
    let segments = [tokenformer_device::Segment {
        keys: &key[..],
        values: &value[..],
        tokens: case.tokens,
        tau: case.tau as f32,
    }];
    let site = tokenformer_device::Site {
        theta: case.theta,
        norm,
        tau: case.tau as f32,
        eps: EPS,
        segments: &segments,
    };
    let y = reference::pattention(&site, &x, case.dims);
    let grad = reference::pattention_backward(&site, &x, &dy, case.dims);
    let [dkey, dvalue] = grad.segments.into_iter().next().unwrap();
    [y, grad.dx, dkey, dvalue].map(|numbers| numbers.iter().map(|n| *n as f32).collect())
}

#[test]
fn outputs_and_gradients() {
    let (cases, file) = golden();
    assert_eq!(cases.len(), 18);
    let mut worst = [0.0f64; 2];
    for case in &cases {
        let array = |part: &str| file.read_f32(&format!("{}.{part}", case.name)).unwrap();
        let [x, key, value, dy] = ["x", "key", "value", "dy"].map(array);
        let inputs = [&x[..], &key, &value, &dy];
        // With one segment, both spans are the same layer.
        for norm in [NormSpan::Joint, NormSpan::Segment] {
            let both = [
                ("fast", fast(case, norm, inputs)),
                ("plain", plain(case, norm, inputs)),
            ];
            for (w, (which, found)) in both.iter().enumerate() {
                for (part, got) in ["y", "dx", "dkey", "dvalue"].iter().zip(found) {
                    let want = widen(&array(part));
                    let (l2, max) = (l2_error(got, &want), max_error(got, &want));
                    worst[w] = worst[w].max(l2).max(max);
                    let what = format!("{which} {norm:?} {}.{part}", case.name);
                    assert!(
                        l2 <= 1e-5 && max <= 1e-5,
                        "{what}: {l2:.2e} (L2), {max:.2e} (max)"
                    );
                }
            }
        }
    }
    println!(
        "largest relative error: fast {:.2e}, plain {:.2e}",
        worst[0], worst[1]
    );
}

/// `Θ` of one row of scores, by both kernels: the keys are the scores, the values the unit matrix.
fn theta(kind: Theta, tau: f32, scores: &[f32]) -> [Vec<f32>; 2] {
    let n = scores.len();
    let mut unit = vec![0.0; n * n];
    (0..n).for_each(|i| unit[i * n + i] = 1.0);
    let case = Golden {
        name: String::new(),
        theta: kind,
        tau: f64::from(tau),
        dims: SiteDims {
            rows: 1,
            d_in: 1,
            d_out: n,
        },
        tokens: n,
    };
    let dy = vec![0.0; n];
    let inputs = [&[1.0][..], scores, &unit, &dy];
    let norm = NormSpan::Joint;
    [fast(&case, norm, inputs), plain(&case, norm, inputs)].map(|[y, ..]| y)
}

const SCORES: [f32; 4] = [1.0, -2.0, 0.5, 3.0];

#[track_caller]
fn assert_close(got: &[f32], want: &[f64], bar: f64) {
    for (got, want) in got.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() <= bar, "{got} is not {want}");
    }
}

#[test]
fn rows_of_scores() {
    // The softmax vectors are n·softmax, that is τ = √n.
    let known = [
        (
            Theta::L2NormGelu,
            [0.371_864_68, -0.153_282_74, 0.160_125_17, 1.500_460_97],
        ),
        (
            Theta::GeluL2Norm,
            [0.537_373_45, -0.029_061_37, 0.220_821_23, 1.913_536_83],
        ),
        (
            Theta::Softmax,
            [0.442_215_00, 0.022_016_59, 0.268_216_96, 3.267_551_45],
        ),
    ];
    for (kind, want) in known {
        theta(kind, 2.0, &SCORES)
            .iter()
            .for_each(|got| assert_close(got, &want, 1e-6));
    }
}

#[test]
fn four_zero_keys_behind() {
    let scores = [SCORES, [0.0; 4]].concat();
    let rescaled = [
        0.579_298_82,
        -0.100_397_29,
        0.242_026_43,
        2.220_170_78,
        0.0,
        0.0,
        0.0,
        0.0,
    ];
    let kept = [
        0.371_864_68,
        -0.153_282_74,
        0.160_125_17,
        1.500_460_97,
        0.0,
        0.0,
        0.0,
        0.0,
    ];
    for (tau, want) in [(8f32.sqrt(), rescaled), (2.0, kept)] {
        theta(Theta::L2NormGelu, tau, &scores)
            .iter()
            .for_each(|got| assert_close(got, &want, 1e-6));
    }
}

#[test]
fn gradient_of_a_row_of_scores() {
    // With x = 1, the gradient of the keys is that of the scores.
    let case = Golden {
        name: String::new(),
        theta: Theta::L2NormGelu,
        tau: 2.0,
        dims: SiteDims {
            rows: 1,
            d_in: 1,
            d_out: 4,
        },
        tokens: 4,
    };
    let mut unit = [0.0; 16];
    (0..4).for_each(|i| unit[i * 5] = 1.0);
    let inputs = [&[1.0][..], &SCORES, &unit, &[1.0, 0.0, 0.0, 0.0]];
    let want = [0.436_259_33, 0.065_850_46, -0.016_462_62, -0.098_775_70];
    for [_, _, dkey, _] in [
        fast(&case, NormSpan::Segment, inputs),
        plain(&case, NormSpan::Segment, inputs),
    ] {
        assert_close(&dkey, &want, 1e-6);
    }
}

#[test]
fn rotary_embedding_at_position_three() {
    let want = [
        -2.260_073, -6.960_982, -0.384_713, 2.8453, 4.607_809, 5.866_916, 6.954_969, 7.984_817,
        -8.768_812, 7.452_834, 11.395_262, 12.324_945, 13.144_128, 14.056_29, 15.020_932,
        16.007_582,
    ];
    let [cos, sin] = RotaryTable::numbers(4, 16, 10_000.0);
    let table = rotary::Table {
        dims: 16,
        cos: &cos,
        sin: &sin,
    };
    let dims = RotaryDims {
        length: 1,
        heads: 1,
        channels: 16,
        first: 3,
    };
    let start: Vec<f32> = (1..=16).map(|i| i as f32).collect();
    let mut x = start.clone();
    exec(1, |exec| rotary::rotate(exec, &mut x, table, dims, false));
    assert_close(&x, &want, 2e-6);
    let mut wide = widen(&start);
    reference::rotate(&mut wide, [&widen(&cos), &widen(&sin)], 16, dims, false);
    let rounded: Vec<f32> = wide.iter().map(|x| *x as f32).collect();
    assert_close(&rounded, &want, 2e-6);
    // The gradient turns back.
    exec(1, |exec| rotary::rotate(exec, &mut x, table, dims, true));
    assert_close(&x, &widen(&start), 2e-6);
}
