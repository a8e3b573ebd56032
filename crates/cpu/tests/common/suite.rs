//! Every kernel once, on inputs large enough for several tasks.

use super::Random;
use super::sites::Case;
use tokenformer_cpu::gemm::{Bf16, Mat, MatMut, few_rows_dot, few_rows_sum, par_gemm, par_matmul};
use tokenformer_cpu::{Exec, Pool, Scratch};
use tokenformer_cpu::{adamw, attention, cross_entropy, elementwise, layer_norm, rotary, rows};
use tokenformer_device::{Adam, AttentionDims, RotaryDims, RotaryTable, Theta, Write};

/// The output of a kernel.
pub struct Output {
    pub name: String,
    pub numbers: Vec<f32>,
}

struct Outputs(Vec<Output>);

impl Outputs {
    fn put(&mut self, name: impl Into<String>, numbers: Vec<f32>) {
        self.0.push(Output {
            name: name.into(),
            numbers,
        });
    }
}

/// Runs every kernel with the given number of threads.
pub fn every_kernel(threads: usize) -> Vec<Output> {
    let (pool, mut scratch) = (Pool::new(threads), Scratch::default());
    let mut exec = Exec {
        pool: &pool,
        scratch: &mut scratch,
    };
    let mut out = Outputs(Vec::new());
    pattention(threads, &mut out);
    token_attention(&mut exec, &mut out);
    layer_norms(&mut exec, &mut out);
    losses(&mut exec, &mut out);
    products(&mut exec, &mut out);
    others(&mut exec, &mut out);
    out.0
}

fn pattention(threads: usize, out: &mut Outputs) {
    for (i, theta) in Theta::ALL.into_iter().enumerate() {
        for joint in [true, false] {
            let case = Case {
                theta,
                joint,
                rows: 150,
                d_in: 80,
                d_out: 72,
                tokens: vec![300, 70],
                seed: i as u64,
            };
            let numbers = case.numbers();
            let name = |part: &str| format!("pattention {theta:?} joint={joint} {part}");
            out.put(name("infer"), case.infer(&numbers, threads));
            let found = case.fast(&numbers, threads, 0.0, Write::Replace, &[]);
            out.put(name("y"), found.y);
            out.put(name("dx"), found.dx);
            out.put(name("dkeys"), found.keys.concat());
            out.put(name("dvalues"), found.values.concat());
            let few = Case { rows: 5, ..case };
            out.put(name("few rows"), few.infer(&few.numbers(), threads));
        }
    }
}

fn token_attention(exec: &mut Exec<'_>, out: &mut Outputs) {
    for causal in [true, false] {
        let shape = AttentionDims {
            batch: 2,
            queries: 150,
            keys: 150,
            key_stride: 150,
            heads: 3,
            channels: 20,
            causal,
        };
        let mut random = Random::new(7);
        let len = 2 * 150 * 60;
        let [q, k, v, d_o] = [(); 4].map(|()| random.normals(len, 1.0));
        let (mut o, mut lse) = (vec![0.0; len], vec![0.0; shape.stats_len()]);
        attention::forward(exec, shape, [&q, &k, &v], &mut o, Some(&mut lse));
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; len]);
        attention::backward(
            exec,
            shape,
            [&q, &k, &v],
            &o,
            &lse,
            &d_o,
            [&mut dq, &mut dk, &mut dv],
        );
        for (part, numbers) in [("o", o), ("lse", lse), ("dq", dq), ("dk", dk), ("dv", dv)] {
            out.put(format!("attention causal={causal} {part}"), numbers);
        }
    }
}

fn layer_norms(exec: &mut Exec<'_>, out: &mut Outputs) {
    let (r, d) = (100, 203);
    let mut random = Random::new(8);
    let [x, dy] = [(); 2].map(|()| random.normals(r * d, 1.0));
    let [gain, bias] = [(); 2].map(|()| random.normals(d, 1.0));
    for affine in [
        None,
        Some(layer_norm::Affine {
            gain: &gain,
            bias: &bias,
        }),
    ] {
        let (mut y, mut stats) = (vec![0.0; r * d], vec![0.0; r * 2]);
        layer_norm::forward(exec, &x, affine, 1e-5, &mut y, &mut stats, d);
        let kept = match affine {
            Some(_) => layer_norm::Kept::Input(&x),
            None => layer_norm::Kept::Output(&y),
        };
        let mut dx = vec![0.5; r * d];
        layer_norm::backward(
            exec,
            kept,
            &stats,
            affine.map(|a| a.gain),
            &dy,
            (&mut dx, Write::Add),
            d,
        );
        let name = |part: &str| format!("layer norm affine={} {part}", affine.is_some());
        out.put(name("y"), y);
        out.put(name("dx"), dx);
        if affine.is_some() {
            let [mut dgain, mut dbias] = [(); 2].map(|()| vec![0.0; d]);
            layer_norm::backward_affine(exec, &x, &stats, &dy, &mut dgain, &mut dbias);
            out.put(name("dgain"), dgain);
            out.put(name("dbias"), dbias);
        }
        out.put(name("stats"), stats);
    }
}

fn losses(exec: &mut Exec<'_>, out: &mut Outputs) {
    let (r, d, v) = (90, 40, 700);
    let mut random = Random::new(9);
    let (h, table) = (random.normals(r * d, 1.0), random.normals(v * d, 0.3));
    let targets = random.tokens(r, v);
    let [mut nll, mut dh, mut dtable] = [r, r * d, v * d].map(|len| vec![0.0; len]);
    let gradient = cross_entropy::Gradient {
        weight: 0.01,
        dh: &mut dh,
        dtable: Some(&mut dtable),
        dbias: None,
    };
    let head = cross_entropy::Head {
        hidden: &h,
        table: &table,
        bias: None,
        scale: 0.7,
        width: d,
    };
    let classes = cross_entropy::Targets::Classes(&targets);
    cross_entropy::forward::<f32>(exec, head, classes, &mut nll, Some(gradient));
    let soft: Vec<f32> = random
        .normals(r * v, 0.01)
        .iter()
        .map(|x| x.abs())
        .collect();
    let mut soft_losses = vec![0.0; r];
    let weights = cross_entropy::Targets::Soft(&soft);
    cross_entropy::forward::<f32>(exec, head, weights, &mut soft_losses, None);
    out.put("soft losses", soft_losses);
    let mut logits = vec![0.0; r * v];
    let right = Mat::new(&table, v, d).t();
    let left = Mat::new(&h, r, d);
    let to = MatMut::new(&mut logits, r, v);
    par_matmul::<f32>(exec, to, Write::Replace, left, right, 0.7);
    let mut few = vec![0.0; 3 * v];
    let left = Mat::new(&h[..3 * d], 3, d);
    let to = MatMut::new(&mut few, 3, v);
    par_matmul::<f32>(exec, to, Write::Replace, left, right, 0.7);
    for (part, numbers) in [
        ("nll", nll),
        ("dh", dh),
        ("dtable", dtable),
        ("logits", logits),
    ] {
        out.put(format!("cross-entropy {part}"), numbers);
    }
    out.put("few logits", few);
}

fn products(exec: &mut Exec<'_>, out: &mut Outputs) {
    let (m, k, n) = (300, 90, 530);
    let mut random = Random::new(10);
    let (a, b) = (random.normals(m * k, 1.0), random.normals(n * k, 1.0));
    let mut c = random.normals(m * n, 1.0);
    par_gemm(
        exec,
        &mut c,
        Write::Add,
        Mat::new(&a, m, k),
        Mat::new(&b, n, k).t(),
        0.3,
    );
    out.put("matrix product", c);
    let rows = 6;
    let mut y = vec![0.0; rows * n];
    few_rows_dot(exec, &mut y, n, &a[..rows * k], &b, k, 0.3);
    let mut sum = random.normals(rows * k, 1.0);
    few_rows_sum(exec, &mut sum, Write::Add, &y, n, &b, k);
    out.put("few rows dot", y);
    out.put("few rows sum", sum);
}

fn halves(numbers: &[f32]) -> Vec<Bf16> {
    numbers.iter().copied().map(Bf16::from_f32).collect()
}

fn others(exec: &mut Exec<'_>, out: &mut Outputs) {
    let len = 40_000;
    let mut random = Random::new(11);
    let [mut p, g, mut m] = [(); 3].map(|()| random.normals(len, 1.0));
    let mut v: Vec<f32> = random.normals(len, 1.0).iter().map(|v| v * v).collect();
    let adam = Adam {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
    };
    let update = adamw::Update {
        adam,
        scalars: adam.scalars(1e-2, 0.1, 3),
        factor: 0.7,
    };
    let (mut half_p, [mut half_m, mut half_v]) = (p.clone(), [&m, &v].map(|x| halves(x)));
    adamw::update(exec, update, &mut half_p, &g, [&mut half_m, &mut half_v]);
    out.put("adamw p, bf16 moments", half_p);
    out.put("adamw m, bf16", half_m.iter().map(|x| x.to_f32()).collect());
    out.put("adamw v, bf16", half_v.iter().map(|x| x.to_f32()).collect());
    adamw::update(exec, update, &mut p, &g, [&mut m[..], &mut v[..]]);
    let mut gelus = vec![0.0; len];
    elementwise::gelu(exec, &mut gelus, &g);
    out.put("gelu", gelus.clone());
    elementwise::gelu_backward(exec, &mut gelus, &g, &p);
    out.put("gelu backward", gelus.clone());
    let mut bias = vec![0.0; 200];
    elementwise::sum_rows(exec, &mut bias, &gelus);
    elementwise::add_to_rows(exec, &mut gelus, &bias);
    out.put("sum of rows", bias);
    out.put("added to rows", gelus);
    elementwise::add(exec, &mut m, &v);
    let squares = elementwise::sum_of_squares(exec, &p).to_bits();
    out.put(
        "sum of squares",
        vec![
            f32::from_bits((squares >> 32) as u32),
            f32::from_bits(squares as u32),
        ],
    );
    out.put("adamw p", p);
    out.put("adamw m + v", m);

    let (vocab, d, r) = (50, 130, 200);
    let tokens = random.tokens(r, vocab);
    let (table, dy) = (random.normals(vocab * d, 1.0), random.normals(r * d, 1.0));
    let (mut y, mut dtable) = (vec![0.0; r * d], vec![0.0; vocab * d]);
    rows::gather(exec, &table, &tokens, &mut y, d);
    rows::scatter_add(exec, &mut dtable, &tokens, &dy, d);
    let [cos, sin] = RotaryTable::numbers(100, 8, 1e4);
    let angles = rotary::Table {
        dims: 8,
        cos: &cos,
        sin: &sin,
    };
    let dims = RotaryDims {
        length: 100,
        heads: 10,
        channels: 13,
        first: 0,
    };
    rotary::rotate(exec, &mut y, angles, dims, false);
    out.put("rows, then rotary", y);
    out.put("scattered rows", dtable);
}
