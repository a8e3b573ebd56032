//! The sequence of an image: its patches, a class token before them, and positions.

use super::{Backward, Recorder, temp_mut, unshared};
use crate::param::Param;
use crate::tensor::{Tensor, Var};
use tokenformer_device::{Buffer, Result, RowsToStore, Temp};

/// `y[b] = [class token; patches[b]] + positions`.
pub(crate) struct Assemble<'m> {
    patches: Var,
    out: Var,
    class: Option<ClassToken<'m>>,
    positions: Option<&'m Param>,
}

/// A class token, and which rows of the result are what.
struct ClassToken<'m> {
    token: &'m Param,
    its_rows: Temp,
    patch_rows: Temp,
}

impl<'m> Assemble<'m> {
    /// `patches` `[B, P, D]`, `class` `[1, D]`, `positions` `[T, D]` with the parameter that it is of, if it is learned:
    /// `[B, T, D]`. `index` is a work area.
    pub fn forward(
        rec: &mut Recorder,
        patches: Tensor,
        class: Option<&'m Param>,
        positions: Option<(&Buffer, Option<&'m Param>)>,
        index: &mut Vec<u32>,
    ) -> Result<(Tensor, Option<Self>)> {
        let [batch, count, width] = patches.shape();
        let length = count + usize::from(class.is_some());
        let var = patches.var;
        let mut y = match class {
            Some(token) => with_class_token(rec, &patches, token, index)?.share(),
            None => unshared(&rec.device, patches.data)?,
        };
        if let Some((table, _)) = positions {
            // A sequence is a row as long as the table.
            rec.device.add_to_rows(table, temp_mut(&mut y))?;
        }
        let y = rec.tensor(y, [batch, length, width]);
        let (Some(patches), Some(out)) = (var, y.var) else {
            return Ok((y, None));
        };
        let class = match class {
            Some(token) => Some(ClassToken {
                token,
                its_rows: rows(rec, batch, length, 0..1, index)?,
                patch_rows: rows(rec, batch, length, 1..length, index)?,
            }),
            None => None,
        };
        let note = Self {
            patches,
            out,
            class,
            positions: positions.and_then(|(_, param)| param),
        };
        Ok((y, Some(note)))
    }

    /// The parameters whose gradients the backward pass adds to.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        let class = self.class.as_ref().map(|class| class.token);
        class.into_iter().chain(self.positions)
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Some(dy) = back.take(self.out) else {
            return Ok(());
        };
        let device = &**back.device;
        if let Some(positions) = self.positions
            && let Some(to) = back.params.get_mut(positions)?
        {
            device.sum_rows(&dy, to)?;
        }
        let Some(class) = self.class else {
            return back.contribute(self.patches, dy);
        };
        let width = class.token.len();
        if let Some(mut to) = back.params.take(class.token)? {
            let mut d_token = back.temp(class.its_rows.len() * width)?;
            device.gather_rows(&dy, &class.its_rows, width, &mut d_token)?;
            device.sum_rows(&d_token, &mut to)?;
            back.params.put(class.token, to);
        }
        let mut d_patches = back.temp(class.patch_rows.len() * width)?;
        device.gather_rows(&dy, &class.patch_rows, width, &mut d_patches)?;
        back.contribute(self.patches, d_patches.share())
    }
}

/// `[B, 1 + P, D]` of patches `[B, P, D]` behind a class token.
fn with_class_token(
    rec: &Recorder,
    patches: &Tensor,
    token: &Param,
    index: &mut Vec<u32>,
) -> Result<Temp> {
    let [batch, count, width] = patches.shape();
    index.clear();
    index.resize(batch, 0);
    let first = Temp::indices(&rec.device, index)?;
    let mut tokens = rec.temp(batch * width)?;
    rec.device
        .gather_rows(token.value(), &first, width, &mut tokens)?;
    let mut y = rec.temp(batch * (1 + count) * width)?;
    let part = |at, length| RowsToStore {
        batch,
        length,
        width,
        at,
        capacity: 1 + count,
    };
    rec.device.store_rows(&tokens, part(0, 1), &mut y)?;
    rec.device
        .store_rows(&patches.data, part(1, count), &mut y)?;
    Ok(y)
}

/// Numbers of the rows that stand at `positions` in sequences of `length`.
fn rows(
    rec: &Recorder,
    batch: usize,
    length: usize,
    positions: std::ops::Range<usize>,
    index: &mut Vec<u32>,
) -> Result<Temp> {
    index.clear();
    let rows = (0..batch).flat_map(|b| positions.clone().map(move |at| b * length + at));
    index.extend(rows.map(|row| row as u32));
    Temp::indices(&rec.device, index)
}
