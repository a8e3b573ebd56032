//! Arrays that go from their owners to all ranks.

use crate::owners::{Message, Part};
use std::collections::VecDeque;
use tokenformer_device::{Collective, Pending, Result};

/// Messages under way at a time.
const WINDOW: usize = 8;

/// Brings every array from its owner to all ranks. `read` gives numbers of an array that this rank owns; `write` takes those of
/// an array that it does not own, when all have come.
///
/// # Errors
/// If the device or a connection fails.
pub fn share_arrays(
    collective: &dyn Collective,
    messages: &[Message],
    len_of: impl Fn(usize) -> usize,
    mut read: impl FnMut(Part, &mut [f32]) -> Result<()>,
    mut write: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let rank = collective.rank();
    let mut under_way: VecDeque<(&Message, Box<dyn Pending>)> = VecDeque::new();
    let mut arriving: Vec<Arriving> = Vec::new();
    let mut land = |(message, pending): (&Message, Box<dyn Pending>)| {
        let numbers = pending.wait()?;
        match message.owner == rank {
            true => Ok(()),
            false => arrive(&mut arriving, message, &numbers, &len_of, &mut write),
        }
    };
    for message in messages {
        let mut numbers = vec![0.0; message.parts.iter().map(|part| part.len).sum()];
        if message.owner == rank {
            let mut rest = &mut numbers[..];
            for &part in &message.parts {
                let (own, more) = rest.split_at_mut(part.len);
                read(part, own)?;
                rest = more;
            }
        }
        under_way.push_back((message, collective.begin_broadcast(message.owner, numbers)?));
        if under_way.len() > WINDOW
            && let Some(first) = under_way.pop_front()
        {
            land(first)?;
        }
    }
    under_way.into_iter().try_for_each(land)
}

/// An array of which a part is there.
struct Arriving {
    id: usize,
    numbers: Vec<f32>,
}

fn arrive(
    arriving: &mut Vec<Arriving>,
    message: &Message,
    mut numbers: &[f32],
    len_of: &impl Fn(usize) -> usize,
    write: &mut impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    for part in &message.parts {
        let (own, rest) = numbers.split_at(part.len);
        numbers = rest;
        let len = len_of(part.id);
        if part.len == len {
            write(part.id, own)?;
            continue;
        }
        // The parts of an array come in order; those of other owners may come between them.
        let at = match arriving.iter().position(|found| found.id == part.id) {
            Some(at) => at,
            None => {
                arriving.push(Arriving {
                    id: part.id,
                    numbers: Vec::with_capacity(len),
                });
                arriving.len() - 1
            }
        };
        arriving[at].numbers.extend_from_slice(own);
        if arriving[at].numbers.len() == len {
            write(part.id, &arriving.swap_remove(at).numbers)?;
        }
    }
    Ok(())
}
