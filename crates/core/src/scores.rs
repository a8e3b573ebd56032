//! Measuring how large the scores of a site are: sums of their squares, per segment.

use crate::recorder::Recorder;
use crate::site::Site;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use tokenformer_device::{Buffer, Device, Matmul, Operand, Output, Result, Role, Write};

/// In training every eighth row is measured, which is enough for a running mean and costs little.
const SAMPLED: usize = 8;

/// Sums of squared scores of sites, in the order of their segments.
#[derive(Debug, Default)]
pub(crate) struct ScoreSums {
    /// Whether all sites are measured, on all rows, with their inputs.
    all: bool,
    /// By number of the first segment's keys.
    by_site: BTreeMap<usize, Held>,
}

#[derive(Debug)]
struct Held {
    /// One sum per segment, and that of the inputs.
    sums: Buffer,
    /// Rows that were measured.
    rows: usize,
    /// The sums of several processes, in place of this one's.
    together: Option<Vec<f64>>,
}

/// What was measured of a site, as means over rows.
pub(crate) struct Measured {
    /// Squared scores of a row, added up over the tokens of each segment.
    pub segments: Vec<f64>,
    /// Squared norm of an input; 0 where inputs are not measured.
    pub input: f64,
}

impl ScoreSums {
    /// Measures all sites on all rows, with their inputs.
    pub fn of_all() -> Self {
        Self {
            all: true,
            by_site: BTreeMap::new(),
        }
    }

    /// Resets the sums and keeps the memory.
    pub fn reset(&mut self) {
        for held in self.by_site.values_mut() {
            held.rows = 0;
            held.together = None;
        }
    }

    /// Adds the scores of `x` at `site`, if they are measured. Returns the floating-point operations.
    pub fn add(&mut self, rec: &Recorder, x: &Tensor, site: &Site) -> Result<u64> {
        if !self.all && site.tracked().is_none() {
            return Ok(0);
        }
        let device = &*rec.device;
        let (d, inputs) = (x.width(), site.segments().len());
        let held = match self.by_site.entry(key(site)) {
            std::collections::btree_map::Entry::Occupied(held) => held.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(Held {
                sums: device.alloc(inputs + 1, Role::Accumulator)?,
                rows: 0,
                together: None,
            }),
        };
        if held.rows == 0 {
            device.zero(&mut held.sums)?;
        }
        let rows = if self.all {
            x.rows()
        } else {
            x.rows().div_ceil(SAMPLED)
        };
        for (s, segment) in site.segments().iter().enumerate() {
            let mut scores = rec.temp(rows * segment.tokens())?;
            let product = Matmul {
                a: Operand::rows(&x.data, d),
                b: Operand::transposed(segment.keys.value(), d),
                rows,
                inner: d,
                cols: segment.tokens(),
                scale: 1.0,
            };
            let to = Output::rows(&mut scores, segment.tokens());
            device.matmul(product, Write::Replace, to)?;
            device.sum_of_squares(&scores, &mut held.sums, s)?;
        }
        if self.all {
            device.sum_of_squares(&x.data, &mut held.sums, inputs)?;
        }
        held.rows += rows;
        Ok(2 * (rows * site.tokens() * d) as u64)
    }

    /// The sums since the reset, with the rows that were measured, in the order of sites; afterwards nothing is measured.
    pub fn take(&mut self, device: &dyn Device) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for held in self.by_site.values_mut() {
            let start = all.len();
            all.resize(start + held.sums.len(), 0.0);
            if held.rows > 0 {
                device.read_accumulator(&held.sums, &mut all[start..])?;
            }
            all.push(held.rows as f64);
            held.rows = 0;
        }
        Ok(all)
    }

    /// Makes the sums of several processes, in the order of [`ScoreSums::take`], those that were measured.
    pub fn set(&mut self, mut sums: &[f64]) {
        for held in self.by_site.values_mut() {
            let Some((own, rest)) = sums.split_at_checked(held.sums.len() + 1) else {
                return;
            };
            sums = rest;
            held.rows = own[held.sums.len()] as usize;
            held.together = Some(own[..held.sums.len()].to_vec());
        }
    }

    /// The means of a site; `None` if nothing was measured.
    pub fn of(&self, site: &Site, device: &dyn Device) -> Result<Option<Measured>> {
        let Some(held) = self.by_site.get(&key(site)).filter(|held| held.rows > 0) else {
            return Ok(None);
        };
        let mut segments = vec![0.0; site.segments().len() + 1];
        match &held.together {
            Some(sums) => segments.copy_from_slice(sums),
            None => device.read_accumulator(&held.sums, &mut segments)?,
        }
        segments.iter_mut().for_each(|sum| *sum /= held.rows as f64);
        let input = segments.pop().unwrap_or_default();
        Ok(Some(Measured { segments, input }))
    }
}

fn key(site: &Site) -> usize {
    site.segments()[0].keys.id()
}
