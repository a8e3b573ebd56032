//! What the ranks of a run do together besides adding up gradients: sums over micro-batches in a fixed order, agreement.

mod divided;
mod reducer;
mod times;

pub(crate) use divided::{divide, part_of};
pub(crate) use reducer::Reducer;
pub(crate) use times::{RankTimes, Times};

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::task::Nats;
use std::path::{Path, PathBuf};
use tokenformer_core::device::Collective;
use tokenformer_core::{Model, Precision};

/// Checks that a recipe gives each of `world` ranks something to do.
///
/// # Errors
/// [`Error::Recipe`] if there are more ranks than micro-batches.
pub(crate) fn check(recipe: &Recipe, world: usize) -> Result<()> {
    let train = &recipe.train;
    let (batch, accumulate) = (train.batch, train.accumulate);
    let problem = |problem: &str, expected: String, got: String, help: String| {
        Err(Error::Recipe {
            place: "train.accumulate".into(),
            problem: problem.into(),
            expected,
            got,
            help,
        })
    };
    if accumulate < world as u64 {
        let windows = batch as u64 * accumulate;
        let smaller = (windows / world as u64).max(1);
        return problem(
            "fewer micro-batches than ranks",
            format!(
                "at least {world}, one for each rank; all ranks together do train.accumulate of them in an update"
            ),
            accumulate.to_string(),
            format!(
                "--set train.accumulate={world} --set train.batch={smaller} keeps about the same number of windows in an update"
            ),
        );
    }
    if recipe.ranks.reduce.is_fast() && !accumulate.is_multiple_of(world as u64) {
        return problem(
            "with ranks.reduce = \"fast\" all ranks do equally many micro-batches",
            format!("a multiple of {world}"),
            accumulate.to_string(),
            "choose such a number, or ranks.reduce = \"ordered\"".into(),
        );
    }
    Ok(())
}

/// Numbers of the micro-batches of an update, each known to the rank that had it.
pub(crate) struct MicroBatchStats {
    /// Losses in nats, and bytes.
    nats: Vec<[f64; 2]>,
    /// Sums of squared scores.
    scores: Vec<Vec<f64>>,
}

/// Numbers of an update on all ranks.
pub(crate) struct StepStats {
    pub nats: Option<Nats>,
    pub scores: Vec<f64>,
    pub flops: u64,
}

impl MicroBatchStats {
    pub fn new(micro_batches: u64) -> Self {
        let count = micro_batches as usize;
        Self {
            nats: vec![[0.0; 2]; count],
            scores: vec![Vec::new(); count],
        }
    }

    /// Notes a micro-batch of this rank.
    pub fn note(&mut self, leaf: u64, nats: Nats, scores: Vec<f64>) {
        self.nats[leaf as usize] = [nats.sum, nats.bytes.unwrap_or(f64::NAN)];
        self.scores[leaf as usize] = scores;
    }

    /// Adds up the numbers of all micro-batches in their order, as one process does.
    pub fn add_up(self, flops: u64, collective: &dyn Collective) -> Result<StepStats> {
        const HALF: u32 = 32;
        let measured = self.scores.iter().map(Vec::len).max().unwrap_or(0);
        // Every slot is zero on all ranks but one, so that the sums over ranks are exact. Of the operations both halves are
        // whole numbers, far below the largest that f64 holds exactly.
        let mut numbers = vec![(flops >> HALF) as f64, (flops & u64::from(u32::MAX)) as f64];
        for (nats, scores) in self.nats.iter().zip(&self.scores) {
            numbers.extend(nats);
            numbers.extend(scores);
            numbers.resize(numbers.len() + measured - scores.len(), 0.0);
        }
        collective.all_reduce(&mut numbers)?;
        let (flops, leaves) = numbers.split_at(2);
        let mut whole = StepStats {
            nats: None,
            scores: vec![0.0; measured],
            flops: ((flops[0] as u64) << HALF) + flops[1] as u64,
        };
        for leaf in leaves.chunks(2 + measured) {
            let nats = Nats {
                sum: leaf[0],
                bytes: Some(leaf[1]).filter(|bytes| !bytes.is_nan()),
            };
            whole.nats = Some(whole.nats.map_or(nats, |sum| sum.and(nats)));
            let scores = whole.scores.iter_mut().zip(&leaf[2..]);
            scores.for_each(|(sum, more)| *sum += more);
        }
        Ok(whole)
    }
}

/// Lets all ranks know a path that rank 0 has found.
pub(crate) fn share_path(
    collective: &dyn Collective,
    found: Option<PathBuf>,
) -> Result<Option<PathBuf>> {
    if collective.world() == 1 {
        return Ok(found);
    }
    let bytes = found.map(|path| path.as_os_str().as_encoded_bytes().to_vec());
    let bytes = collective.broadcast_bytes(bytes.unwrap_or_default())?;
    // Ranks run the same program on the same kind of system, so that the text is a path there, too.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// The precision that rank 0 finds, on all ranks: what each would find may differ between machines, and from one measurement to
/// the next.
///
/// # Errors
/// If a rank or the connection fails.
pub fn precision_of_first(
    collective: &dyn Collective,
    find: impl FnOnce() -> Precision,
) -> Result<Precision> {
    let found = match collective.rank() {
        0 => find().name().into(),
        _ => Vec::new(),
    };
    let name = collective.broadcast_bytes(found)?;
    let precision = std::str::from_utf8(&name)
        .ok()
        .and_then(|name| name.parse().ok());
    precision.ok_or_else(|| Error::Ranks {
        problem: "rank 0 has a precision that this rank does not know".into(),
        expected: "f32 or bf16".into(),
        got: String::from_utf8_lossy(&name).into_owned(),
        help: "start the same program on every machine".into(),
    })
}

/// Waits for all ranks, and tells whether any of them says so.
pub(crate) fn any(collective: &dyn Collective, says: bool) -> Result<bool> {
    Ok(collective.any(says)?)
}

/// Returns an error that names a rank whose `value` is another than that of rank 0.
pub(crate) fn ensure_equal(collective: &dyn Collective, what: &str, value: u64) -> Result<()> {
    const HALF: u32 = 32;
    let (rank, world) = (collective.rank(), collective.world());
    let mut values = vec![0.0; 2 * world];
    values[2 * rank] = (value >> HALF) as f64;
    values[2 * rank + 1] = (value & u64::from(u32::MAX)) as f64;
    collective.all_reduce(&mut values)?;
    let first = &values[..2];
    match values.chunks(2).position(|of_rank| of_rank != first) {
        Some(other) => Err(Error::Ranks {
            problem: format!("{what}: {} has another one than rank 0", collective.name(other)),
            expected: "the same recipe, data and files on every machine, and machines that compute alike".into(),
            got: "two that differ".into(),
            help: "start all ranks with the same command; a run folder must be on a file system that all machines share".into(),
        }),
        None => Ok(()),
    }
}

/// A hash of bytes (FNV-1a).
pub(crate) fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325u64;
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.into_iter().fold(start, mix)
}

/// Checks that all ranks have the same weights, to the bit.
pub(crate) fn ensure_same_weights(collective: &dyn Collective, model: &Model) -> Result<()> {
    const CHUNK: usize = 4096;
    if collective.world() == 1 {
        return Ok(());
    }
    let mut host = [0.0f32; CHUNK];
    let mut all = hash([]);
    for param in model.params() {
        for start in (0..param.len()).step_by(CHUNK) {
            let chunk = &mut host[..CHUNK.min(param.len() - start)];
            model.device().read_part(param.value(), start, chunk)?;
            for number in chunk {
                all = (all ^ u64::from(number.to_bits())).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    ensure_equal(collective, "the weights", all)
}

/// A path of the run for messages of another rank.
pub(crate) fn ensure_readable(path: &Path, collective: &dyn Collective) -> Result<()> {
    match path.exists() {
        true => Ok(()),
        false => Err(Error::Ranks {
            problem: format!(
                "{}: {} does not see it",
                path.display(),
                collective.name(collective.rank())
            ),
            expected: "a run folder on a file system that all machines share".into(),
            got: "no such folder on this machine".into(),
            help: "put --out on a shared file system".into(),
        }),
    }
}
