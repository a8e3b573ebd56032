//! Which rank owns which array: it adds up the array's gradients and, with a sharded optimizer, keeps its moments.

/// Numbers of a message between ranks, at most: large enough that a message costs more than its latency, and small enough to be
/// sent while the next one is put together.
pub const MESSAGE: usize = 1 << 18;

/// The owners of a model's arrays, by their numbers.
#[derive(Clone, Debug)]
pub struct Owners {
    by_id: Vec<Option<(usize, usize)>>,
    /// Numbers that each rank owns.
    loads: Vec<usize>,
}

/// Consecutive numbers of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the array.
    pub id: usize,
    /// The first of its numbers.
    pub start: usize,
    /// How many.
    pub len: usize,
}

/// Numbers of one owner that are sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whose they are.
    pub owner: usize,
    /// Which they are.
    pub parts: Vec<Part>,
}

impl Owners {
    /// Nothing is owned yet, by `world` ranks.
    pub fn new(world: usize) -> Self {
        Self {
            by_id: Vec::new(),
            loads: vec![0; world.max(1)],
        }
    }

    /// Takes in the arrays that there are now: numbers and lengths. Those that were there keep their owners, so that nothing
    /// moves at a growth; new ones go to the ranks that own least, the largest first. All ranks come to the same result.
    pub fn extend(&mut self, arrays: impl IntoIterator<Item = (usize, usize)>) {
        let mut arrays: Vec<(usize, usize)> = arrays.into_iter().collect();
        arrays.sort_by_key(|&(id, len)| (std::cmp::Reverse(len), id));
        let mut before = std::mem::take(&mut self.by_id);
        self.loads.fill(0);
        let size = arrays.iter().map(|&(id, _)| id + 1).max().unwrap_or(0);
        self.by_id.resize(size, None);
        let is_old = |&(id, len): &(usize, usize)| {
            let known = before.get_mut(id).and_then(Option::take);
            match known {
                Some((owner, before)) if before == len => Ok((id, len, owner)),
                _ => Err((id, len)),
            }
        };
        let mut fresh = Vec::new();
        for found in arrays.iter().map(is_old) {
            match found {
                Ok((id, len, owner)) => self.give(id, len, owner),
                Err(array) => fresh.push(array),
            }
        }
        for (id, len) in fresh {
            let loads = self.loads.iter().enumerate();
            let (owner, _) = loads
                .min_by_key(|&(rank, load)| (load, rank))
                .unwrap_or((0, &0));
            self.give(id, len, owner);
        }
    }

    fn give(&mut self, id: usize, len: usize, owner: usize) {
        self.by_id[id] = Some((owner, len));
        self.loads[owner] += len;
    }

    /// The owner of array `id`; rank 0 owns unknown arrays.
    pub fn of(&self, id: usize) -> usize {
        let known = self.by_id.get(id).copied().flatten();
        known.map_or(0, |(owner, _)| owner)
    }

    /// Numbers that each rank owns.
    pub fn loads(&self) -> &[usize] {
        &self.loads
    }

    /// All numbers in messages, those of each owner in the order of arrays, and the owners in turn.
    pub fn messages(&self) -> Vec<Message> {
        let mut by_owner: Vec<Vec<Message>> = vec![Vec::new(); self.loads.len()];
        for (id, &known) in self.by_id.iter().enumerate() {
            let Some((owner, len)) = known else { continue };
            let messages = &mut by_owner[owner];
            let mut start = 0;
            while start < len {
                let used = messages
                    .last()
                    .map_or(MESSAGE, |last| last.parts.iter().map(|p| p.len).sum());
                if used >= MESSAGE {
                    let parts = Vec::new();
                    messages.push(Message { owner, parts });
                    continue;
                }
                let part = Part {
                    id,
                    start,
                    len: (len - start).min(MESSAGE - used),
                };
                start += part.len;
                // There is one: an owner without messages counts as one with a full message.
                if let Some(last) = messages.last_mut() {
                    last.parts.push(part);
                }
            }
        }
        let most = by_owner.iter().map(Vec::len).max().unwrap_or(0);
        let turns = (0..most).flat_map(|turn| by_owner.iter().filter_map(move |own| own.get(turn)));
        turns.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_even_and_nothing_moves_at_a_growth() {
        let mut owners = Owners::new(3);
        owners.extend([(0, 100), (1, 40), (2, 40), (3, 60), (4, 60)]);
        assert_eq!(owners.loads(), [100, 100, 100]);
        let before: Vec<usize> = (0..5).map(|id| owners.of(id)).collect();
        owners.extend([
            (0, 100),
            (1, 40),
            (2, 40),
            (3, 60),
            (4, 60),
            (6, 30),
            (7, 20),
        ]);
        assert_eq!((0..5).map(|id| owners.of(id)).collect::<Vec<_>>(), before);
        assert_eq!(owners.loads().iter().sum::<usize>(), 350);
        // One that is gone leaves its owner room.
        owners.extend([(1, 40), (2, 40), (3, 60), (4, 60), (8, 90)]);
        assert_eq!(owners.of(8), before[0]);
    }

    #[test]
    fn messages_have_every_number_once() {
        let arrays = [(0, 3 * MESSAGE + 5), (2, 7), (3, MESSAGE - 1), (5, 2)];
        let mut owners = Owners::new(2);
        owners.extend(arrays);
        let mut seen: Vec<Part> = Vec::new();
        for message in owners.messages() {
            let len: usize = message.parts.iter().map(|part| part.len).sum();
            assert!(len > 0 && len <= MESSAGE);
            assert!(
                message
                    .parts
                    .iter()
                    .all(|part| owners.of(part.id) == message.owner)
            );
            seen.extend(message.parts);
        }
        for (id, len) in arrays {
            let mut end = 0;
            for part in seen.iter().filter(|part| part.id == id) {
                assert_eq!(part.start, end, "in order");
                end += part.len;
            }
            assert_eq!(end, len);
        }
    }
}
