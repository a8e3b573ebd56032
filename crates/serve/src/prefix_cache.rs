//! Memory for keys and values: a bounded pool, in which those of ended texts stay while there is room, because the next
//! text may begin alike.

use tokenformer_core::Cache;

/// Fewest positions that are worth a copy.
const FEWEST_SHARED: usize = 8;
/// Most ended texts that are kept.
const MOST_KEPT: usize = 64;

/// What keys and values belong to: a model, and the newest stage that took part.
pub(crate) type Owner = (usize, Option<u32>);

/// The keys and values of an ended text.
#[derive(Debug)]
struct CachedPrefix {
    owner: Owner,
    tokens: Vec<u32>,
    cache: Cache,
    bytes: usize,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    limit_bytes: usize,
    used_bytes: usize,
    /// The one that was used longest ago is first.
    kept: Vec<CachedPrefix>,
}

/// Tokens that two texts begin with. The last token of `prompt` is left out: its logits are needed.
pub(crate) fn shared(seen: &[u32], prompt: &[u32]) -> usize {
    let prompt = &prompt[..prompt.len().saturating_sub(1)];
    let len = seen.iter().zip(prompt).take_while(|(a, b)| a == b).count();
    if len < FEWEST_SHARED { 0 } else { len }
}

impl PrefixCache {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            used_bytes: 0,
            kept: Vec::new(),
        }
    }

    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Takes `bytes` if they fit; kept texts make room.
    pub fn take(&mut self, bytes: usize) -> bool {
        let kept: usize = self.kept.iter().map(|kept| kept.bytes).sum();
        if self.used_bytes - kept + bytes > self.limit_bytes {
            return false;
        }
        while self.used_bytes + bytes > self.limit_bytes {
            self.drop_first();
        }
        self.used_bytes += bytes;
        true
    }

    /// Gives back what [`PrefixCache::take`] took.
    pub fn give(&mut self, bytes: usize) {
        self.used_bytes -= bytes;
    }

    /// Keeps the keys and values of an ended text, of `bytes` that are still taken. `tokens` are those that it has seen.
    pub fn keep(&mut self, owner: Owner, tokens: Vec<u32>, cache: Cache, bytes: usize) {
        let is_held = |kept: &CachedPrefix| kept.owner == owner && kept.tokens.starts_with(&tokens);
        if tokens.len() < FEWEST_SHARED || self.kept.iter().any(is_held) {
            self.give(bytes);
            return;
        }
        // A prefix of the new one is of no further use.
        let mut given = 0;
        self.kept.retain(|kept| {
            let is_part = kept.owner == owner && tokens.starts_with(&kept.tokens);
            given += if is_part { kept.bytes } else { 0 };
            !is_part
        });
        self.give(given);
        if self.kept.len() == MOST_KEPT {
            self.drop_first();
        }
        self.kept.push(CachedPrefix {
            owner,
            tokens,
            cache,
            bytes,
        });
    }

    /// The kept text that begins most like `prompt`, and how many tokens they share.
    pub fn longest(&mut self, owner: Owner, prompt: &[u32]) -> Option<(&Cache, usize)> {
        let candidates = self.kept.iter().enumerate();
        let (at, len) = candidates
            .filter(|(_, kept)| kept.owner == owner)
            .map(|(at, kept)| (at, shared(&kept.tokens, prompt)))
            .filter(|&(_, len)| len > 0)
            .max_by_key(|&(_, len)| len)?;
        let kept = self.kept.remove(at);
        self.kept.push(kept);
        self.kept.last().map(|kept| (&kept.cache, len))
    }

    fn drop_first(&mut self) {
        if !self.kept.is_empty() {
            self.used_bytes -= self.kept.remove(0).bytes;
        }
    }
}
