//! Each kernel of a training step alone, at the shapes of a preset, beside what limits it.

use super::machine::Machine;
use super::{Setup, median};
use crate::commands::print_json;
use std::time::Instant;
use tokenformer_core::{Precision, SiteKind};
use tokenformer_kernels::adamw::Update;
use tokenformer_kernels::gemm::{self, Bf16, Kept, Source, Write};
use tokenformer_kernels::pattention::{Norm, Saved, Segment, SegmentGrad, Site, Theta};
use tokenformer_kernels::rotary::Table as RotaryTable;
use tokenformer_kernels::{
    Exec, Pool, Scratch, adamw, attention, cross_entropy, elementwise, layer_norm, pattention,
    rotary,
};
use tokenformer_report::table::Table;
use tokenformer_train::Result;

/// Floats of the arrays that AdamW and the sum of squares go over, more than caches hold.
const LONG: usize = 16 << 20;

/// One kernel.
#[derive(serde::Serialize)]
struct Row {
    kernel: &'static str,
    shape: String,
    ms: f64,
    gflops: f64,
    gb_per_s: f64,
    /// What the kernel would wait for if it did nothing in vain.
    limit: &'static str,
    /// Time that the limit allows over the time taken.
    share_of_limit: Option<f64>,
}

#[derive(serde::Serialize)]
struct Output<'a> {
    preset: &'a str,
    precision: &'static str,
    threads: usize,
    machine: Machine,
    kernels: Vec<Row>,
}

/// Times the kernels.
pub fn run(setup: &Setup<'_>) -> Result<()> {
    let (precision, threads) = (setup.precision()?, setup.threads());
    setup.ensure_training(&setup.config)?;
    let machine = Machine::measure(threads);
    let (pool, mut scratch) = (Pool::new(threads), Scratch::default());
    let mut bench = Bench {
        exec: Exec {
            pool: &pool,
            scratch: &mut scratch,
        },
        steps: setup.args.steps,
        machine: &machine,
        rows: Vec::new(),
    };
    match precision {
        Precision::F32 => bench.products::<f32>(setup),
        Precision::Bf16 => bench.products::<Bf16>(setup),
    }
    bench.attention(setup);
    bench.passes(setup);
    let output = Output {
        preset: &setup.args.preset,
        precision: precision.name(),
        threads,
        kernels: bench.rows,
        machine,
    };
    match setup.args.json {
        true => print_json(&output),
        false => print(&output),
    }
    Ok(())
}

struct Bench<'a> {
    exec: Exec<'a>,
    steps: usize,
    machine: &'a Machine,
    rows: Vec<Row>,
}

/// Numbers that are neither equal nor large.
fn numbers(len: usize) -> Vec<f32> {
    let number = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32;
    (0..len)
        .map(|i| number(i) / (1 << 24) as f32 - 0.5)
        .collect()
}

impl Bench<'_> {
    /// Times `work` after an untimed `prepare`, for as often as asked, and once before.
    fn time<T>(
        &mut self,
        what: (&'static str, String),
        [flops, bytes]: [f64; 2],
        state: &mut T,
        prepare: impl Fn(&mut Exec<'_>, &mut T),
        work: impl Fn(&mut Exec<'_>, &mut T),
    ) {
        let seconds: Vec<f64> = (0..=self.steps)
            .map(|_| {
                prepare(&mut self.exec, state);
                let started = Instant::now();
                work(&mut self.exec, state);
                started.elapsed().as_secs_f64()
            })
            .skip(1)
            .collect();
        let seconds = median(seconds);
        let reads = bytes / (1e9 * self.machine.read_gb_per_s);
        let computes = self.machine.peak_gflops.map(|peak| flops / (1e9 * peak));
        let (limit, least) = match computes {
            Some(computes) if computes > reads => ("arithmetic", Some(computes)),
            None if flops > 0.0 => ("arithmetic", None),
            _ => ("memory", Some(reads)),
        };
        self.rows.push(Row {
            kernel: what.0,
            shape: what.1,
            ms: 1e3 * seconds,
            gflops: flops / seconds / 1e9,
            gb_per_s: bytes / seconds / 1e9,
            limit,
            share_of_limit: least.map(|least| least / seconds),
        });
    }

    /// The large products: sites and the head.
    fn products<P: gemm::Precision>(&mut self, setup: &Setup<'_>)
    where
        f32: Source<P>,
    {
        let (config, r, d) = (&setup.config, setup.rows(), setup.config.width);
        for kind in [SiteKind::Query, SiteKind::Ffn] {
            let n = config.blocks[0].site(kind).tokens();
            let name = format!("{} R={r} D={d} N={n}", kind.name());
            let (keys, values) = (numbers(n * d), numbers(n * d));
            let segments = [Segment {
                keys: &keys,
                values: &values,
                tokens: n,
                tau: (n as f32).sqrt(),
            }];
            let site = Site {
                theta: Theta::L2NormGelu,
                norm: Norm::Joint {
                    tau: (n as f32).sqrt(),
                },
                eps: 1e-6,
                segments: &segments,
            };
            let (x, dims) = (numbers(r * d), [r, d, d]);
            let product = 2.0 * (r * n * d) as f64;
            // Each array once: rows in and out, keys, values, and the scores that are kept.
            let bytes = 4.0 * (2 * r * d + 2 * n * d + r * n) as f64;
            let mut state = (
                vec![0.0f32; r * n],
                vec![0.0f32; r],
                vec![0.0f32; r * d],
                vec![0.0f32; r * n],
            );
            let forward = |exec: &mut Exec<'_>, state: &mut Work| {
                let (scores, stats, y, _) = state;
                let scores = &mut P::Kept::in_floats(scores)[..r * n];
                let saved = Saved { scores, stats };
                pattention::forward::<P>(exec, &site, &x, y, dims, Some(saved));
            };
            type Work = (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>);
            let what = ("site forward", name.clone());
            let work = [2.0 * product, bytes];
            self.time(what, work, &mut state, |_, _| {}, forward);

            let backward =
                |exec: &mut Exec<'_>, state: &mut Work, grad: Option<SegmentGrad<'_>>| {
                    let (scores, stats, y, work) = state;
                    let scores = &mut P::Kept::in_floats(scores)[..r * n];
                    let work = &mut P::Kept::in_floats(work)[..r * n];
                    let (saved, dx) = (Saved { scores, stats }, Some((&mut y[..], Write::Replace)));
                    let (dy, grads) = (&x, &mut [grad]);
                    pattention::backward::<P>(exec, &site, &x, dy, dims, saved, work, dx, grads);
                };
            let what = ("site backward, frozen", name.clone());
            let work = [2.0 * product, bytes + 4.0 * (2 * r * n) as f64];
            self.time(what, work, &mut state, forward, |exec, state| {
                backward(exec, state, None);
            });
            let mut state = (state, vec![0.0f32; n * d], vec![0.0f32; n * d]);
            let what = ("site backward, with weights", name);
            let work = [4.0 * product, bytes + 4.0 * (4 * r * n + 4 * n * d) as f64];
            self.time(
                what,
                work,
                &mut state,
                |exec, (state, ..)| forward(exec, state),
                |exec, (state, keys, values)| {
                    backward(exec, state, Some(SegmentGrad { keys, values }));
                },
            );
        }
        let v = config.vocab;
        let (h, table) = (numbers(r * d), numbers(v * d));
        let targets = super::tokens(r, v);
        let mut state = (vec![0.0f32; r], vec![0.0f32; r * d], vec![0.0f32; v * d]);
        let what = (
            "head, cross-entropy and gradients",
            format!("R={r} D={d} V={v}"),
        );
        let work = [
            6.0 * (r * v * d) as f64,
            4.0 * (2 * r * d + 3 * v * d) as f64,
        ];
        self.time(
            what,
            work,
            &mut state,
            |_, _| {},
            |exec, (nll, dh, dtable)| {
                let gradient = cross_entropy::Gradient {
                    weight: 1.0 / r as f32,
                    dh,
                    dtable: Some(dtable),
                };
                let gradient = Some(gradient);
                cross_entropy::forward::<P>(exec, &h, &table, 1.0, &targets, nll, gradient, d);
            },
        );
    }

    fn attention(&mut self, setup: &Setup<'_>) {
        let (config, r, d) = (&setup.config, setup.rows(), setup.config.width);
        let of = attention::Shape {
            batch: setup.batch,
            queries: setup.context,
            keys: setup.context,
            key_stride: setup.context,
            heads: config.heads,
            channels: d / config.heads,
            causal: true,
        };
        let name = format!(
            "B={} T={} H={} C={}",
            of.batch, of.queries, of.heads, of.channels
        );
        let qkv = [0; 3].map(|_| numbers(r * d));
        let qkv = || qkv.each_ref().map(|x| &x[..]);
        let mut state = (vec![0.0f32; r * d], vec![0.0f32; of.stats_len()]);
        // Half of each product is masked.
        let product = (r * setup.context * d) as f64;
        let what = ("attention forward", name.clone());
        let work = [2.0 * product, 4.0 * (4 * r * d) as f64];
        self.time(
            what,
            work,
            &mut state,
            |_, _| {},
            |exec, (o, lse)| {
                attention::forward(exec, of, qkv(), o, Some(lse));
            },
        );
        let (o, lse) = state;
        let d_o = numbers(r * d);
        let mut grads = [0; 3].map(|_| vec![0.0f32; r * d]);
        let what = ("attention backward", name);
        let work = [5.0 * product, 4.0 * (8 * r * d) as f64];
        self.time(
            what,
            work,
            &mut grads,
            |_, _| {},
            |exec, grads| {
                let grads = grads.each_mut().map(|g| &mut g[..]);
                attention::backward(exec, of, qkv(), &o, &lse, &d_o, grads);
            },
        );
    }

    /// Kernels that pass over memory and compute little.
    fn passes(&mut self, setup: &Setup<'_>) {
        let (config, r, d) = (&setup.config, setup.rows(), setup.config.width);
        let name = format!("R={r} D={d}");
        let (x, dy) = (numbers(r * d), numbers(r * d));
        let mut state = (vec![0.0f32; r * d], vec![0.0f32; 2 * r]);
        let bytes = |arrays: usize, len: usize| [0.0, (4 * arrays * len) as f64];
        let what = ("LayerNorm forward", name.clone());
        self.time(
            what,
            bytes(2, r * d),
            &mut state,
            |_, _| {},
            |exec, (y, stats)| layer_norm::forward(exec, &x, None, 1e-5, y, stats, d),
        );
        let (y, stats) = state;
        let mut dx = vec![0.0f32; r * d];
        let what = ("LayerNorm backward", name.clone());
        self.time(
            what,
            bytes(4, r * d),
            &mut dx,
            |_, _| {},
            |exec, dx| {
                let kept = layer_norm::Kept::Output(&y);
                layer_norm::backward(exec, kept, &stats, None, &dy, (dx, Write::Add), d);
            },
        );
        let rotated = (d / config.heads / 4).next_multiple_of(2);
        let table = RotaryTable::new(setup.context, rotated, 10_000.0);
        let dims = [setup.context, config.heads, d / config.heads];
        let what = ("rotary", name.clone());
        let touched = r * config.heads * rotated;
        self.time(
            what,
            bytes(2, touched),
            &mut dx,
            |_, _| {},
            |exec, x| rotary::rotate(exec, x, &table, dims, 0, false),
        );
        let what = ("residual add", name);
        self.time(
            what,
            bytes(3, r * d),
            &mut dx,
            |_, _| {},
            |exec, y| elementwise::add(exec, y, &x),
        );
        let gradient = numbers(LONG);
        let long = format!("{LONG} numbers");
        let what = ("sum of squares", long.clone());
        self.time(
            what,
            bytes(1, LONG),
            &mut 0.0,
            |_, _| {},
            |exec, sum| *sum = elementwise::sum_of_squares(exec, &gradient),
        );
        let update = Update {
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            grad_scale: 1.0,
            step: 1,
        };
        let mut state = [0; 3].map(|_| vec![0.0f32; LONG]);
        self.time(
            ("AdamW", long),
            bytes(7, LONG),
            &mut state,
            |_, _| {},
            |exec, [p, m, v]| adamw::update(exec, update, p, &gradient, m, v),
        );
    }
}

fn print(output: &Output<'_>) {
    let m = &output.machine;
    outln!(
        "kernels of {} in {}, {} threads; the machine does {:.0} GFLOP/s in f32 and reads {:.1} GB/s",
        output.preset,
        output.precision,
        output.threads,
        m.peak_gflops.unwrap_or(f64::NAN),
        m.read_gb_per_s
    );
    let headers = ["kernel", "shape", "ms", "GFLOP/s", "GB/s", "limit", "share"];
    let mut table = Table::new(headers);
    for row in &output.kernels {
        table.row([
            row.kernel.to_string(),
            row.shape.clone(),
            format!("{:.3}", row.ms),
            match row.gflops > 0.0 {
                true => format!("{:.0}", row.gflops),
                false => String::new(),
            },
            format!("{:.1}", row.gb_per_s),
            row.limit.to_string(),
            row.share_of_limit
                .map_or(String::new(), |share| format!("{:.0} %", 100.0 * share)),
        ]);
    }
    out!("{table}");
    outln!("GB/s count each array once; arrays that fit into caches can pass the limit of memory");
}
