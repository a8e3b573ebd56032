//! Which requests run together: choices of a question share the tokens with which they begin, and
//! questions with equally long shared beginnings share a batch.

use crate::score::Request;

/// Shared beginnings are cut to a multiple of this, so that many questions have equally long ones and
/// run together: on HellaSwag that is faster than sharing every token.
const SHARED_STEP: usize = 8;

/// Requests that run after one pass over their beginnings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Tokens of each shared beginning; 0 if nothing is shared.
    pub shared: usize,
    /// A request of each question, from which its beginning is taken; none if nothing is shared.
    pub heads: Vec<usize>,
    /// Passes over the rest, each with requests and the number of their head.
    pub passes: Vec<Vec<(usize, usize)>>,
}

/// Requests of one question.
struct Unit {
    shared: usize,
    longest: usize,
    members: Vec<usize>,
}

/// Tokens with which all of `requests` begin and that run once, leaving each at least its first scored
/// position.
pub(crate) fn shared(requests: &[Request]) -> usize {
    let [first, others @ ..] = requests else {
        return 0;
    };
    if others.is_empty() {
        return 0;
    }
    let common = |other: &Request| {
        let pairs = first.inputs().iter().zip(other.inputs());
        pairs.take_while(|(a, b)| a == b).count()
    };
    let most = requests.iter().map(Request::first_scored).min();
    let shared = others.iter().map(common).chain(most).min().unwrap_or(0);
    shared / SHARED_STEP * SHARED_STEP
}

/// Divides `requests` into batches whose passes have at most `most_tokens` tokens, padding included, and
/// attend to at most twice as many positions, where a single question allows it. Longest first.
pub(crate) fn plan(requests: &[Request], most_tokens: usize) -> Vec<Batch> {
    let mut units = units(requests);
    units.sort_by_key(|unit| std::cmp::Reverse((unit.shared, unit.longest)));
    let mut batches: Vec<Batch> = Vec::new();
    let mut members: Vec<(usize, usize)> = Vec::new();
    for unit in units {
        let fits = batches.last().is_some_and(|batch| {
            let heads = batch.heads.len() + 1;
            batch.shared == unit.shared && heads.saturating_mul(unit.shared) <= most_tokens
        });
        if !fits {
            finish(&mut batches, &mut members, requests, most_tokens);
            batches.push(Batch {
                shared: unit.shared,
                heads: Vec::new(),
                passes: Vec::new(),
            });
        }
        if let Some(batch) = batches.last_mut() {
            members.extend(unit.members.iter().map(|&m| (m, batch.heads.len())));
            if unit.shared > 0 {
                batch.heads.extend(unit.members.first());
            }
        }
    }
    finish(&mut batches, &mut members, requests, most_tokens);
    batches
}

/// The questions of `requests`; requests that share nothing stand alone.
fn units(requests: &[Request]) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut start = 0;
    for group in requests.chunk_by(|a, b| a.group == b.group) {
        let range = start..start + group.len();
        start = range.end;
        let shared = shared(group);
        let longest = |m: usize| requests.get(m).map_or(0, |r| r.inputs().len());
        if shared > 0 {
            units.push(Unit {
                shared,
                longest: range.clone().map(longest).max().unwrap_or(0),
                members: range.collect(),
            });
        } else {
            units.extend(range.map(|m| Unit {
                shared: 0,
                longest: longest(m),
                members: vec![m],
            }));
        }
    }
    units
}

/// Divides the members of the last batch into passes.
fn finish(
    batches: &mut [Batch],
    members: &mut Vec<(usize, usize)>,
    requests: &[Request],
    most_tokens: usize,
) {
    let Some(batch) = batches.last_mut() else {
        return;
    };
    let rest = |m: usize| {
        requests
            .get(m)
            .map_or(0, |r| r.inputs().len() - batch.shared)
    };
    // Longest first, so that neighbours need little padding.
    members.sort_by_key(|&(m, _)| std::cmp::Reverse(rest(m)));
    let (mut pass, mut width, mut useful) = (Vec::new(), 0usize, 0usize);
    for (m, head) in members.drain(..) {
        let padded = (pass.len() + 1) * width.max(rest(m));
        let cached = (pass.len() + 1) * (batch.shared + width.max(rest(m)));
        let is_wasteful = useful >= ENOUGH_TOKENS && (useful + rest(m)) * 10 < padded * 9;
        if !pass.is_empty() && (padded.max(cached / 2) > most_tokens || is_wasteful) {
            batch.passes.push(std::mem::take(&mut pass));
            (width, useful) = (0, 0);
        }
        width = width.max(rest(m));
        useful += rest(m);
        pass.push((m, head));
    }
    if !pass.is_empty() {
        batch.passes.push(pass);
    }
}

/// A pass of this many tokens keeps the machine busy: no need to pad more than a tenth of it.
const ENOUGH_TOKENS: usize = 256;
