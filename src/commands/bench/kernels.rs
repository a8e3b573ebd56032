//! Each kernel of a training step by itself, at the shapes of a preset, with the limit of the machine.

use super::machine::Machine;
use super::{Setup, median};
use crate::commands::print_json;
use crate::usage;
use std::time::Instant;
use tokenformer_core::device::{
    Adam, AttentionDims, NormSpan, RotaryDims, RotaryTable, SiteDims, Theta, Write,
};
use tokenformer_core::{Precision, SiteKind};
use tokenformer_cpu::arena::Region;
use tokenformer_cpu::gemm::{self, Bf16, Kept, Source};
use tokenformer_cpu::pattention::{Saved, Segment, SegmentGrad, Site};
use tokenformer_cpu::{
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
    /// The resource that limits an ideal kernel.
    limit: &'static str,
    /// Ideal time divided by the measured time.
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
    if setup.is_on_gpu() {
        let device = setup.args.compute.device.as_deref().unwrap_or_default();
        let help =
            "`bench train --device cuda` times whole steps there, and `gpu-check` its products";
        return Err(usage(
            "--device",
            "the CPU, whose kernels these are",
            device,
            help,
        ));
    }
    setup.ensure_training(&setup.config)?;
    // This checks the number of threads and the name of the device.
    setup.device(precision)?;
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
        Precision::F32 => {
            bench.sites::<f32>(setup);
            bench.head::<f32>(setup);
        }
        Precision::Bf16 => {
            bench.sites::<Bf16>(setup);
            bench.head::<Bf16>(setup);
        }
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

/// A site's arrays that its kernels write.
struct SiteState {
    scores: Region,
    stats: Region,
    /// `[R, D]`: the output, then the gradient of the input.
    rows: Region,
    work: Region,
    keys: Region,
    values: Region,
}

impl Bench<'_> {
    /// Zeros in the kind of memory that arrays of a training step lie in.
    fn zeros(&mut self, len: usize) -> Region {
        let mut zeros = self.exec.scratch.take_shared(len);
        zeros.fill(0.0);
        zeros
    }

    /// Numbers that are different and small, as [`Bench::zeros`].
    fn numbers(&mut self, len: usize) -> Region {
        let mut numbers = self.zeros(len);
        for (i, number) in numbers.iter_mut().enumerate() {
            let mixed = (i as u32).wrapping_mul(2_654_435_761) >> 8;
            *number = mixed as f32 / (1 << 24) as f32 - 0.5;
        }
        numbers
    }

    /// Times `work`, which does the given number of operations and reads or writes the given number of floats: once to warm up,
    /// then as often as asked.
    fn time(
        &mut self,
        kernel: &'static str,
        shape: &str,
        amounts: [usize; 2],
        mut work: impl FnMut(&mut Exec<'_>),
    ) {
        self.time_after(
            kernel,
            shape,
            amounts,
            &mut (),
            |_, ()| {},
            |exec, ()| work(exec),
        );
    }

    /// As [`Bench::time`], after an untimed `prepare` each time.
    fn time_after<T>(
        &mut self,
        kernel: &'static str,
        shape: &str,
        [flops, floats]: [usize; 2],
        state: &mut T,
        mut prepare: impl FnMut(&mut Exec<'_>, &mut T),
        mut work: impl FnMut(&mut Exec<'_>, &mut T),
    ) {
        let seconds = (0..=self.steps).map(|_| {
            prepare(&mut self.exec, state);
            let started = Instant::now();
            work(&mut self.exec, state);
            started.elapsed().as_secs_f64()
        });
        let seconds = median(seconds.skip(1).collect());
        let (flops, bytes) = (flops as f64, (floats * size_of::<f32>()) as f64);
        let reads = bytes / (1e9 * self.machine.read_gb_per_s);
        let computes = self.machine.peak_gflops.map(|peak| flops / (1e9 * peak));
        let (limit, least) = match computes {
            Some(computes) if computes > reads => ("arithmetic", Some(computes)),
            None if flops > 0.0 => ("arithmetic", None),
            _ => ("memory", Some(reads)),
        };
        self.rows.push(Row {
            kernel,
            shape: shape.into(),
            ms: 1e3 * seconds,
            gflops: flops / seconds / 1e9,
            gb_per_s: bytes / seconds / 1e9,
            limit,
            share_of_limit: least.map(|least| least / seconds),
        });
    }

    /// Both kinds of sites in Pattention as the paper has it, at the sizes of a TokenFormer's layers, or of an MLP.
    fn sites<P: gemm::Element>(&mut self, setup: &Setup<'_>)
    where
        f32: Source<P>,
    {
        let (config, r, d) = (&setup.config, setup.rows(), setup.config.width);
        let dims = SiteDims {
            rows: r,
            d_in: d,
            d_out: d,
        };
        let (x, dy) = (self.numbers(r * d), self.numbers(r * d));
        for kind in [SiteKind::Query, SiteKind::Ffn] {
            let n = config.blocks[0].layer(kind).hidden();
            if n == 0 {
                continue;
            }
            let shape = format!("{} R={r} D={d} N={n}", kind.name());
            let (keys, values) = (self.numbers(n * d), self.numbers(n * d));
            let tau = (n as f32).sqrt();
            let segments = [Segment {
                keys: &keys,
                values: &values,
                tokens: n,
                tau,
            }];
            let site = Site {
                theta: Theta::L2NormGelu,
                norm: NormSpan::Joint,
                tau,
                eps: 1e-6,
                segments: &segments,
            };
            let forward = |exec: &mut Exec<'_>, state: &mut SiteState| {
                let saved = Saved {
                    scores: &mut P::Kept::in_floats(&mut state.scores)[..r * n],
                    stats: &mut state.stats,
                };
                pattention::forward::<P>(exec, &site, &x, &mut state.rows, dims, Some(saved));
            };
            let backward = |exec: &mut Exec<'_>, state: &mut SiteState, is_frozen: bool| {
                let saved = Saved {
                    scores: &mut P::Kept::in_floats(&mut state.scores)[..r * n],
                    stats: &mut state.stats,
                };
                let grad = SegmentGrad {
                    keys: &mut state.keys,
                    values: &mut state.values,
                };
                pattention::backward::<P>(
                    exec,
                    &site,
                    &x,
                    &dy,
                    dims,
                    saved,
                    &mut P::Kept::in_floats(&mut state.work)[..r * n],
                    Some((&mut state.rows, Write::Replace)),
                    &mut [(!is_frozen).then_some(grad)],
                );
            };
            let mut state = SiteState {
                scores: self.zeros(r * n),
                stats: self.zeros(r),
                rows: self.zeros(r * d),
                work: self.zeros(r * n),
                keys: self.zeros(n * d),
                values: self.zeros(n * d),
            };
            let product = 2 * r * n * d;
            // Each array once: rows in and out, keys and values, and the scores that are kept.
            let floats = 2 * r * d + 2 * n * d + r * n;
            let amounts = [2 * product, floats];
            self.time("site forward", &shape, amounts, |exec| {
                forward(exec, &mut state)
            });
            let amounts = [2 * product, floats + 2 * r * n];
            let name = "site backward, frozen";
            self.time_after(name, &shape, amounts, &mut state, forward, |exec, state| {
                backward(exec, state, true);
            });
            let amounts = [4 * product, floats + 4 * r * n + 4 * n * d];
            let name = "site backward, with weights";
            self.time_after(name, &shape, amounts, &mut state, forward, |exec, state| {
                backward(exec, state, false);
            });
        }
    }

    /// The output head with the loss.
    fn head<P: gemm::Element>(&mut self, setup: &Setup<'_>)
    where
        f32: Source<P>,
    {
        // A picture has one class, a sequence a token for each position.
        let r = match setup.config.input.is_tokens() {
            true => setup.rows(),
            false => setup.batch,
        };
        let (d, v) = (setup.config.width, setup.config.vocab);
        let (h, table) = (self.numbers(r * d), self.numbers(v * d));
        let targets = super::tokens(r, v);
        let (mut nll, mut dh, mut dtable) = (self.zeros(r), self.zeros(r * d), self.zeros(v * d));
        let shape = format!("R={r} D={d} V={v}");
        let amounts = [6 * r * v * d, 2 * r * d + 3 * v * d];
        self.time(
            "head, cross-entropy and gradients",
            &shape,
            amounts,
            |exec| {
                let gradient = Some(cross_entropy::Gradient {
                    weight: 1.0 / r as f32,
                    dh: &mut dh,
                    dtable: Some(&mut dtable),
                    dbias: None,
                });
                let head = cross_entropy::Head {
                    hidden: &h,
                    table: &table,
                    bias: None,
                    scale: 1.0,
                    width: d,
                };
                let targets = cross_entropy::Targets::Classes(&targets);
                cross_entropy::forward::<P>(exec, head, targets, &mut nll, gradient);
            },
        );
    }

    fn attention(&mut self, setup: &Setup<'_>) {
        let (config, r, d) = (&setup.config, setup.rows(), setup.config.width);
        let of = AttentionDims {
            batch: setup.batch,
            queries: setup.context,
            keys: setup.context,
            key_stride: setup.context,
            heads: config.heads,
            channels: d / config.heads,
            causal: config.causal,
        };
        let shape = format!(
            "B={} T={} H={} C={}",
            of.batch, of.queries, of.heads, of.channels
        );
        let [q, k, v, d_o] = [0; 4].map(|_| self.numbers(r * d));
        let (mut o, mut lse) = (self.zeros(r * d), self.zeros(of.stats_len()));
        // Half of each product is masked where positions see only those before them.
        let product = if config.causal { 1 } else { 2 } * r * setup.context * d;
        self.time(
            "attention forward",
            &shape,
            [2 * product, 4 * r * d],
            |exec| {
                attention::forward(exec, of, [&q, &k, &v], &mut o, Some(&mut lse));
            },
        );
        let mut grads = [0; 3].map(|_| self.zeros(r * d));
        self.time(
            "attention backward",
            &shape,
            [5 * product, 8 * r * d],
            |exec| {
                let grads = grads.each_mut().map(|grad| &mut grad[..]);
                attention::backward(exec, of, [&q, &k, &v], &o, &lse, &d_o, grads);
            },
        );
    }

    /// Kernels that pass over memory and compute little.
    fn passes(&mut self, setup: &Setup<'_>) {
        let (config, r, d) = (&setup.config, setup.rows(), setup.config.width);
        let shape = format!("R={r} D={d}");
        let (x, dy) = (self.numbers(r * d), self.numbers(r * d));
        let (mut y, mut dx, mut stats) = (self.zeros(r * d), self.zeros(r * d), self.zeros(2 * r));
        self.time("LayerNorm forward", &shape, [0, 2 * r * d], |exec| {
            layer_norm::forward(exec, &x, None, 1e-5, &mut y, &mut stats, d);
        });
        self.time("LayerNorm backward", &shape, [0, 4 * r * d], |exec| {
            let kept = layer_norm::Kept::Output(&y);
            layer_norm::backward(exec, kept, &stats, None, &dy, (&mut dx, Write::Add), d);
        });
        let rotated = config.rotary_dims();
        let [cos, sin] = RotaryTable::numbers(setup.context, rotated, 10_000.0);
        let table = rotary::Table {
            dims: rotated,
            cos: &cos,
            sin: &sin,
        };
        let dims = RotaryDims {
            length: setup.context,
            heads: config.heads,
            channels: d / config.heads,
            first: 0,
        };
        let floats = 2 * r * config.heads * rotated;
        self.time("rotary", &shape, [0, floats], |exec| {
            rotary::rotate(exec, &mut dx, table, dims, false);
        });
        self.time("residual add", &shape, [0, 3 * r * d], |exec| {
            elementwise::add(exec, &mut y, &x);
        });
        let shape = format!("{LONG} numbers");
        let gradient = self.numbers(LONG);
        let mut sum = 0.0;
        self.time("sum of squares", &shape, [0, LONG], |exec| {
            sum += elementwise::sum_of_squares(exec, &gradient);
        });
        std::hint::black_box(sum);
        let adam = Adam {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
        };
        let update = adamw::Update {
            adam,
            scalars: adam.scalars(1e-4, 0.1, 1),
            factor: 1.0,
        };
        let [mut param, mut m, mut v] = [0; 3].map(|_| self.zeros(LONG));
        self.time("AdamW", &shape, [0, 7 * LONG], |exec| {
            let (p, g) = (&mut param, &gradient);
            adamw::update(exec, update, p, g, [&mut m[..], &mut v[..]]);
        });
    }
}

fn print(output: &Output<'_>) {
    let m = &output.machine;
    let peak = (m.peak_gflops).map_or(String::new(), |peak| {
        format!(" does {peak:.0} GFLOP/s in f32 and")
    });
    outln!(
        "kernels of {} in {}, {} threads; the machine{peak} reads {:.1} GB/s",
        output.preset,
        output.precision,
        output.threads,
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
