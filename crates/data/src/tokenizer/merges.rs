//! The merges of a byte-pair encoding over bytes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Two neighbouring tokens.
type Pair = (u32, u32);

/// The merge of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Merge {
    /// Merges with a lower rank come first.
    rank: u32,
    id: u32,
}

/// The value for pairs that do not merge.
const NONE: Merge = Merge {
    rank: u32::MAX,
    id: 0,
};

/// Up to this length, scanning all pairs for the next merge is faster than a queue.
const SHORT_BYTES: usize = 48;

/// The token of each byte, and the merges of pairs.
pub(super) struct Merges {
    bytes: [u32; 256],
    pairs: HashMap<Pair, Merge, ahash::RandomState>,
}

/// Work buffers that are reused for each word.
#[derive(Default)]
pub(super) struct Work {
    parts: Vec<(u32, Merge)>,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(u32, u32, Pair)>>,
}

/// A token of a long word, in a doubly linked list.
#[derive(Clone, Copy)]
struct Node {
    id: u32,
    before: u32,
    after: u32,
    is_gone: bool,
}

/// The end of the list.
const END: u32 = u32::MAX;

impl Merges {
    /// Makes the table from the tokens of the bytes and the pairs in order of rank, each with its merged token.
    pub(super) fn new(bytes: [u32; 256], pairs: impl Iterator<Item = (Pair, u32)>) -> Self {
        // If a pair is listed twice, the last entry counts, as in the tokenizers crate.
        let pairs = (0..)
            .zip(pairs)
            .map(|(rank, (pair, id))| (pair, Merge { rank, id }));
        Self {
            bytes,
            pairs: pairs.collect(),
        }
    }

    fn get(&self, left: u32, right: u32) -> Merge {
        self.pairs.get(&(left, right)).copied().unwrap_or(NONE)
    }

    /// Appends the tokens of a word. The pair with the lowest rank is merged repeatedly, the first one if several are
    /// equal.
    pub(super) fn apply(&self, word: &[u8], work: &mut Work, ids: &mut Vec<u32>) {
        match word {
            [byte] => ids.push(self.bytes[usize::from(*byte)]),
            _ if word.len() <= SHORT_BYTES => self.apply_short(word, &mut work.parts, ids),
            _ => self.apply_long(word, work, ids),
        }
    }

    fn apply_short(&self, word: &[u8], parts: &mut Vec<(u32, Merge)>, ids: &mut Vec<u32>) {
        parts.clear();
        parts.extend(
            word.iter()
                .map(|&byte| (self.bytes[usize::from(byte)], NONE)),
        );
        for i in 1..parts.len() {
            parts[i - 1].1 = self.get(parts[i - 1].0, parts[i].0);
        }
        loop {
            let lowest = (0..).zip(parts.iter()).min_by_key(|(_, part)| part.1.rank);
            let Some((at, &(_, merge))) = lowest.filter(|(_, part)| part.1 != NONE) else {
                break;
            };
            parts.remove(at + 1);
            let after = parts
                .get(at + 1)
                .map_or(NONE, |next| self.get(merge.id, next.0));
            parts[at] = (merge.id, after);
            if at > 0 {
                parts[at - 1].1 = self.get(parts[at - 1].0, merge.id);
            }
        }
        ids.extend(parts.iter().map(|part| part.0));
    }

    /// The same with a queue of merges, for words of any length.
    fn apply_long(&self, word: &[u8], work: &mut Work, ids: &mut Vec<u32>) {
        let Work { nodes, queue, .. } = work;
        nodes.clear();
        queue.clear();
        nodes.extend((0..).zip(word).map(|(at, &byte): (u32, _)| Node {
            id: self.bytes[usize::from(byte)],
            before: at.checked_sub(1).unwrap_or(END),
            after: at + 1,
            is_gone: false,
        }));
        if let Some(last) = nodes.last_mut() {
            last.after = END;
        }
        let push = |queue: &mut BinaryHeap<_>, nodes: &[Node], at: u32| {
            let Node { id, after, .. } = nodes[at as usize];
            if after != END {
                let pair = (id, nodes[after as usize].id);
                let merge = self.get(pair.0, pair.1);
                if merge != NONE {
                    queue.push(Reverse((merge.rank, at, pair)));
                }
            }
        };
        for at in 0..nodes.len() as u32 {
            push(queue, nodes, at);
        }
        while let Some(Reverse((_, at, pair))) = queue.pop() {
            let node = nodes[at as usize];
            // Either of the two may have merged with another one since.
            if node.is_gone || node.after == END {
                continue;
            }
            let next = nodes[node.after as usize];
            if (node.id, next.id) != pair {
                continue;
            }
            nodes[node.after as usize].is_gone = true;
            nodes[at as usize].id = self.get(pair.0, pair.1).id;
            nodes[at as usize].after = next.after;
            if next.after != END {
                nodes[next.after as usize].before = at;
            }
            push(queue, nodes, at);
            if node.before != END {
                push(queue, nodes, node.before);
            }
        }
        ids.extend(
            nodes
                .iter()
                .filter(|node| !node.is_gone)
                .map(|node| node.id),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn long_words_merge_as_short_ones_do(
            pairs in prop::collection::vec((0_u32..12, 0_u32..12), 0..40),
            word in prop::collection::vec(0_u8..4, 1..200),
        ) {
            // In real encodings ids are pieces of text; here any pair may become any of a few ids.
            let bytes = std::array::from_fn(|byte| byte as u32);
            let merges = Merges::new(bytes, pairs.iter().map(|&(a, b)| ((a, b), 4 + (a + b) % 8)));
            let (mut work, mut short, mut long) = (Work::default(), Vec::new(), Vec::new());
            merges.apply_short(&word, &mut work.parts, &mut short);
            merges.apply_long(&word, &mut work, &mut long);
            prop_assert_eq!(short, long);
        }
    }
}
