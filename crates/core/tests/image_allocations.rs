//! After its first steps, training on images allocates nothing on the host: lists of patches, rows and factors are used
//! again.

mod common;

use common::images::cases;
use std::sync::Arc;
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, DropPath, Gradients, Graph, Recompute};
use tokenformer_cpu::Cpu;
use tokenformer_testing::{Watching, allocations};

#[global_allocator]
static ALLOCATOR: Watching = Watching;

#[test]
fn a_step_on_images_allocates_nothing() {
    for case in cases() {
        for recompute in Recompute::ALL {
            // One thread: which of several takes part first, and needs its scratch memory then, is a matter of luck.
            let device: Arc<dyn Device> = Cpu::new(Some(1));
            let mut model = case.model(&device);
            let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
            let mut gradients = Gradients::zeros(&device, model.each_param()).unwrap();
            let mut losses = vec![0.0; 3];
            let (mut counts, mut reserved) = (Vec::with_capacity(8), Vec::with_capacity(8));
            for step in 0..8 {
                gradients.reset();
                let dropping = DropPath {
                    rate: 0.3,
                    seed: 1,
                    first: 3 * step,
                };
                let g = Graph::training(&device, &mut gradients);
                let mut g = g.recomputing(recompute).dropping(dropping);
                let pooled = model.pooled(&mut g, &case.pixels, 3).unwrap();
                let found = model.losses(&mut g, &pooled, case.targets(), 1.0).unwrap();
                found.read(&*device, &mut losses).unwrap();
                drop((pooled, found));
                g.backward().unwrap();
                optimizer.step(&mut model, &gradients, 1e-3).unwrap();
                counts.push(allocations());
                reserved.push(device.usage().temporary_reserved);
            }
            let allocated: Vec<u64> = counts.windows(2).map(|w| w[1] - w[0]).collect();
            // A recomputed block records on a separate tape, whose lists are small and not kept.
            let most = match recompute {
                Recompute::Blocks => 8 * case.config.layers() as u64,
                Recompute::None | Recompute::Scores => 0,
            };
            let who = format!("{}, {recompute}", case.name);
            assert!(counts[0] > 0, "the counter counts");
            let quiet = &allocated[2..];
            assert!(quiet.iter().all(|&n| n <= most), "{who}: {allocated:?}");
            let same = reserved[3..].iter().all(|&bytes| bytes == reserved[2]);
            assert!(same, "{who}: {reserved:?}");
        }
    }
}
