//! The samples of one data set.

use std::ops::Range;

use super::argument;
use crate::Result;
use crate::megatron::MegatronData;
use crate::numpy_rng::RandomState;

/// The start of a sample: an entry of the shuffled documents, and a token of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleStart {
    /// Position in [`SampleOrder::documents`].
    pub position: u32,
    /// Token of that document.
    pub offset_tokens: u32,
}

/// The samples of one range of documents, in training order.
pub struct SampleOrder {
    seq_length: usize,
    epochs: usize,
    documents: Vec<u32>,
    starts: Vec<SampleStart>,
    shuffled: Vec<u32>,
}

impl SampleOrder {
    /// Builds an order of at least `needed_samples` samples of `seq_length + 1` tokens.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for documents that do not exist or hold too few tokens, and for
    /// orders of more than 2³¹ documents or samples.
    pub fn build(
        data: &MegatronData,
        documents: Range<usize>,
        seq_length: usize,
        needed_samples: usize,
        seed: u32,
    ) -> Result<SampleOrder> {
        if documents.end > data.sequences() || documents.start > documents.end {
            return Err(argument(
                "documents",
                format!("at most {}", data.sequences()),
                format!("{documents:?}"),
            ));
        }
        const MAX: usize = i32::MAX as usize;
        if seq_length == 0 || seq_length >= MAX || documents.end > MAX {
            return Err(argument(
                "seq_length",
                format!("from 1 to {MAX}, with as many documents"),
                format!("{seq_length}, {}", documents.end),
            ));
        }
        let length = |document: usize| data.sequence_tokens(document).unwrap_or(0);
        let per_epoch: usize = documents.clone().map(length).sum();
        // Documents must have at least one token on average, which also bounds the repetitions of documents by the
        // requested tokens.
        if per_epoch == 0 || per_epoch < documents.len() {
            return Err(argument(
                "documents",
                "documents with tokens".into(),
                format!("{per_epoch} tokens in {} documents", documents.len()),
            ));
        }
        let too_many = || {
            argument(
                "needed_samples",
                format!("an order of at most {MAX} documents and samples"),
                needed_samples.to_string(),
            )
        };
        let tokens = needed_samples
            .checked_mul(seq_length)
            .and_then(|tokens| tokens.checked_add(1))
            .ok_or_else(too_many)?;
        let epochs = tokens.div_ceil(per_epoch).max(1);
        let samples = epochs
            .checked_mul(per_epoch)
            .ok_or_else(too_many)?
            .saturating_sub(1)
            / seq_length;
        let repeated = epochs.checked_mul(documents.len()).ok_or_else(too_many)?;
        if repeated > MAX || samples > MAX {
            return Err(too_many());
        }
        let mut random = RandomState::new(seed);
        let mut order = Vec::with_capacity(repeated);
        for _ in 0..epochs {
            order.extend(documents.clone().map(|document| document as u32));
        }
        random.shuffle(&mut order);
        let starts = starts(
            &order,
            |document| length(document as usize),
            seq_length,
            samples,
        );
        let mut shuffled: Vec<u32> = (0..samples as u32).collect();
        random.shuffle(&mut shuffled);
        Ok(SampleOrder {
            seq_length,
            epochs,
            documents: order,
            starts,
            shuffled,
        })
    }

    /// Number of samples as GPT-NeoX counts them: one fewer than exist.
    pub fn len(&self) -> usize {
        self.shuffled.len().saturating_sub(1)
    }

    /// Whether that number is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens of a sample's input; a sample has one more.
    pub fn seq_length(&self) -> usize {
        self.seq_length
    }

    /// How often each document is repeated.
    pub fn epochs(&self) -> usize {
        self.epochs
    }

    /// The shuffled documents (`doc_idx`).
    pub fn documents(&self) -> &[u32] {
        &self.documents
    }

    /// The start of each sample, before shuffling, and the end of the last one (`sample_idx`).
    pub fn starts(&self) -> &[SampleStart] {
        &self.starts
    }

    /// The shuffled samples (`shuffle_idx`).
    pub fn shuffled(&self) -> &[u32] {
        &self.shuffled
    }

    /// Reads sample `index` of the training order into `out`, which has `seq_length + 1` tokens: the input is all but
    /// the last, the target all but the first. After the last sample the order starts again.
    ///
    /// `data` is the data that the order was built for.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a buffer of another length or an order without samples, [`Error::OutOfRange`](crate::Error::OutOfRange) for other
    /// data, [`Error::TokenRange`](crate::Error::TokenRange).
    pub fn read(&self, data: &MegatronData, index: usize, out: &mut [u32]) -> Result<()> {
        if out.len() != self.seq_length + 1 {
            return Err(argument(
                "out",
                format!("{} tokens", self.seq_length + 1),
                out.len().to_string(),
            ));
        }
        // GPT-NeoX wraps around at its count, although it can also read the sample that it does not count.
        let place = self
            .shuffled
            .get(index)
            .or_else(|| self.shuffled.get(index.checked_rem(self.len())?));
        let start = place.and_then(|&sample| self.starts.get(sample as usize));
        let Some(&SampleStart {
            position,
            offset_tokens,
        }) = start
        else {
            return Err(argument(
                "index",
                "an order with samples".into(),
                index.to_string(),
            ));
        };
        let mut offset = offset_tokens as usize;
        let mut rest = out;
        for &document in self.documents.get(position as usize..).unwrap_or_default() {
            let document = document as usize;
            let available = data
                .sequence_tokens(document)
                .unwrap_or(0)
                .saturating_sub(offset);
            let (now, later) = rest.split_at_mut(available.min(rest.len()));
            data.read(document, offset, now)?;
            rest = later;
            offset = 0;
            if rest.is_empty() {
                return Ok(());
            }
        }
        Err(argument(
            "data",
            "the data that the order was built for".into(),
            data.path().display().to_string(),
        ))
    }
}

/// Finds the starts of samples: each begins at the last token of the previous one.
fn starts(
    order: &[u32],
    length: impl Fn(u32) -> usize,
    seq_length: usize,
    samples: usize,
) -> Vec<SampleStart> {
    let mut starts = Vec::with_capacity(samples + 1);
    let mut documents = order.iter().zip(0u32..);
    let mut current = documents.next();
    let mut offset = 0usize;
    // The first sample begins at the first token, every other one after `seq_length` more.
    starts.push(SampleStart {
        position: 0,
        offset_tokens: 0,
    });
    while starts.len() <= samples {
        let mut remaining = seq_length + 1;
        while let Some((&document, position)) = current {
            let available = length(document).saturating_sub(offset);
            if available >= remaining {
                offset += remaining - 1;
                starts.push(SampleStart {
                    position,
                    offset_tokens: offset as u32,
                });
                break;
            }
            remaining -= available;
            offset = 0;
            current = documents.next();
        }
        if current.is_none() {
            // `samples` was computed from the same lengths, so there are always enough tokens.
            break;
        }
    }
    starts
}
