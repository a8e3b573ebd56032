//! Single growths at many moments against scratch and against no growth.

use super::{Ends, Place, cost_from_scratch};
use crate::stats::Curve;
use serde::Serialize;

/// A single growth, measured after its decay; the first seed.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Tokens of text before the growth.
    pub base_tokens: u64,
    /// Parameter tokens over those of the base.
    pub factor: usize,
    /// Tokens of text after it.
    pub tokens: u64,
    /// Floating-point operations from the first update of the base.
    pub flops: f64,
    /// Held-out bits per byte.
    pub bits_per_byte: f64,
    /// Held-out loss in nats per token.
    pub loss: f64,
    /// Loss minus that of the base trained on without a growth at the same cost; `None` beyond its longest run.
    pub against_base: Option<f64>,
    /// Loss minus that of the best plain Transformer from scratch of the same cost.
    pub against_scratch: Option<f64>,
    /// Cost from scratch of the same loss, over the cost with the growth.
    pub speed_up: Option<f64>,
    /// The same, over the cost since the growth: for whoever has the base already.
    pub speed_up_of_stage: Option<f64>,
    /// How the speed-ups are to be read: `"="`, or `">="` and `"<="` for a loss outside the measured range.
    pub bound: &'static str,
}

/// All cells with a result.
pub(super) fn cells(ends: &Ends<'_>) -> Vec<Cell> {
    const SEED: u64 = 1;
    let (graph, map) = (&ends.plan.graph, &ends.plan.map);
    let per_step = (graph.common().batch * graph.common().context) as u64;
    let found = |node: usize| {
        let result = ends.results.of(graph.node(node))?;
        Some((result.flops, result.held_out.as_ref()?))
    };
    let bases = map.iter().filter(|place| place.growth.is_none());
    let bases: Vec<(f64, f64)> = bases
        .filter_map(|place| found(place.node).map(|(flops, held_out)| (flops, held_out.loss)))
        .collect();
    let (base, scratch) = (Curve::new(&bases), ends.scratch(SEED));
    let cell = |place: &crate::plan::Place| {
        let (factor, after) = place.growth?;
        let (flops, held_out) = found(place.node)?;
        let without = base
            .as_ref()
            .filter(|curve| flops <= curve.range()[1])
            .and_then(|curve| curve.at(flops));
        let rival = ends.frontier(SEED, flops);
        let cost = cost_from_scratch(&scratch, held_out.loss);
        Some(Cell {
            base_tokens: place.base * per_step,
            factor,
            tokens: after * per_step,
            flops,
            bits_per_byte: held_out.bits_per_byte,
            loss: held_out.loss,
            against_base: without.map(|loss| held_out.loss - loss),
            against_scratch: rival.map(|loss| held_out.loss - loss),
            speed_up: cost.as_ref().map(|found| found.cost / flops),
            speed_up_of_stage: (cost.as_ref())
                .map(|found| found.cost / ends.flops_after(place.node)),
            bound: match cost.map(|found| found.place) {
                Some(Place::AtLeast) => ">=",
                Some(Place::AtMost) => "<=",
                Some(Place::Inside) | None => "=",
            },
        })
    };
    map.iter().filter_map(cell).collect()
}
