//! Scoring on several ranks: each scores a part of the questions of a call, and all get all scores.

use crate::error::Result;
use crate::score::{Request, Scored, Scorer};
use std::ops::Range;
use std::sync::Arc;
use tokenformer_core::device::Collective;

/// The scorers of all ranks as one, with the same scores for any number of ranks: those of a question do not depend on which
/// other questions share its batch.
pub struct Together<S> {
    own: S,
    ranks: Arc<dyn Collective>,
}

impl<S: Scorer> Together<S> {
    /// The scorer of this rank with those of the others, which have the same model.
    pub fn new(own: S, ranks: Arc<dyn Collective>) -> Self {
        Self { own, ranks }
    }
}

/// The part of `requests` that is the turn of `rank`: whole groups, about equally many tokens to each.
fn part(requests: &[Request], rank: usize, world: usize) -> Range<usize> {
    let total: usize = requests.iter().map(|request| request.tokens.len()).sum();
    let end_of = |rank: usize| {
        let goal = total * (rank + 1) / world;
        let (mut tokens, mut end) = (0, 0);
        while end < requests.len() && tokens < goal {
            let group = requests[end].group;
            while end < requests.len() && requests[end].group == group {
                tokens += requests[end].tokens.len();
                end += 1;
            }
        }
        end
    };
    let start = match rank {
        0 => 0,
        _ => end_of(rank - 1),
    };
    start..end_of(rank)
}

impl<S: Scorer> Scorer for Together<S> {
    fn context(&self) -> usize {
        self.own.context()
    }

    fn ranks(&self) -> usize {
        self.ranks.world()
    }

    fn score(&mut self, requests: &[Request]) -> Result<Vec<Scored>> {
        let own = part(requests, self.ranks.rank(), self.ranks.world());
        let scores = match own.is_empty() {
            true => Vec::new(),
            false => self.own.score(&requests[own.clone()])?,
        };
        // Slots that all ranks but one leave at zero, so that the sums are exact.
        let mut numbers = vec![0.0; 2 * requests.len()];
        for (slot, score) in numbers[2 * own.start..].chunks_mut(2).zip(&scores) {
            slot[0] = score.loglik;
            slot[1] = match score.greedy {
                None => 0.0,
                Some(false) => 1.0,
                Some(true) => 2.0,
            };
        }
        self.ranks.all_reduce(&mut numbers)?;
        let scores = numbers.chunks(2).map(|slot| Scored {
            loglik: slot[0],
            greedy: match slot[1] {
                1.0 => Some(false),
                2.0 => Some(true),
                _ => None,
            },
        });
        Ok(scores.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenformer_testing::Threads;

    /// Scores by the tokens alone.
    struct Plain;

    impl Scorer for Plain {
        fn context(&self) -> usize {
            64
        }

        fn score(&mut self, requests: &[Request]) -> Result<Vec<Scored>> {
            let score = |request: &Request| {
                let sum: u32 = request.tokens.iter().sum();
                Scored {
                    loglik: -f64::from(sum) / 3.0,
                    greedy: request.greedy.then_some(sum.is_multiple_of(2)),
                }
            };
            Ok(requests.iter().map(score).collect())
        }
    }

    fn requests(count: usize) -> Vec<Request> {
        let request = |i: usize| Request {
            group: i / 3,
            tokens: (0..2 + (i * 7 % 11) as u32).collect(),
            scored: 1,
            greedy: i.is_multiple_of(2),
            truncated: false,
            lost: 0,
        };
        (0..count).map(request).collect()
    }

    #[test]
    fn ranks_give_the_scores_of_one() {
        for count in [0, 1, 3, 20] {
            let requests = requests(count);
            let one = Plain.score(&requests).unwrap();
            for world in [1, 2, 3, 5] {
                let parts: Vec<_> = (0..world)
                    .map(|rank| part(&requests, rank, world))
                    .collect();
                assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
                assert_eq!((parts[0].start, parts[world - 1].end), (0, count));
                let all = Threads::run(world, |ranks| {
                    Together::new(Plain, ranks).score(&requests).unwrap()
                });
                assert!(
                    all.into_iter().all(|scores| scores == one),
                    "{count} on {world}"
                );
            }
        }
    }
}
