//! Losses of a study that is not finished: not every arm has ended with every seed.

use super::{Contrast, Table, mean};

/// Losses of arms (rows) by seed (columns), as far as they are known; a run that diverged has an infinite one.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Losses {
    /// The losses of these rows.
    pub fn new(rows: impl IntoIterator<Item = (String, Vec<Option<f64>>)>) -> Self {
        Self {
            rows: rows.into_iter().collect(),
        }
    }

    /// Names of the arms.
    pub fn arms(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.0.as_str())
    }

    fn row(&self, arm: &str) -> Option<&[Option<f64>]> {
        let row = self.rows.iter().find(|row| row.0 == arm)?;
        Some(&row.1)
    }

    /// Numbers of the seeds of which all these arms have a loss; `None` without one of the arms, or if a run of one diverged: its
    /// other seeds alone would make it better than it is.
    fn shared(&self, arms: &[&str]) -> Option<Vec<usize>> {
        let rows: Option<Vec<_>> = arms.iter().map(|arm| self.row(arm)).collect();
        let rows = rows?;
        let diverged = |row: &&[Option<f64>]| row.iter().flatten().any(|loss| !loss.is_finite());
        if rows.iter().any(diverged) {
            return None;
        }
        let seeds = rows.first()?.len();
        let have_all = |seed: &usize| rows.iter().all(|row| row[*seed].is_some());
        Some((0..seeds).filter(have_all).collect())
    }

    /// The rows of some arms that have a loss for every one of these seeds.
    fn over(&self, seeds: &[usize], keep: impl Fn(&str) -> bool) -> Table {
        let kept = self.rows.iter().filter(|row| keep(&row.0));
        let of = |(name, losses): &(String, Vec<Option<f64>>)| {
            (
                name.clone(),
                seeds.iter().map(|&seed| losses[seed]).collect(),
            )
        };
        Table::new(kept.map(of))
    }

    /// Mean difference of two arms over the seeds that both have; `None` for fewer than two.
    pub fn difference(&self, arm: &str, reference: &str) -> Option<f64> {
        let seeds = self.shared(&[arm, reference])?;
        let table = self.over(&seeds, |row| row == arm || row == reference);
        let of = |name: &str| Some(mean(table.losses(name)?));
        (seeds.len() > 1).then_some(of(arm)? - of(reference)?)
    }

    /// The paired difference of two arms over the seeds that both have, with the error that the rows of `pooled` have in
    /// these seeds. Rows that lack one of these seeds are left out.
    pub fn contrast(
        &self,
        name: String,
        arm: &str,
        reference: &str,
        pooled: impl Fn(&str) -> bool,
    ) -> Option<Contrast> {
        let seeds = self.shared(&[arm, reference])?;
        self.over(&seeds, pooled).contrast(name, arm, reference)
    }

    /// Standard error of the difference of two of these arms, and its degrees of freedom, over the seeds of the arm that gives
    /// most of them.
    pub fn error(&self, pooled: impl Fn(&str) -> bool) -> Option<(f64, f64)> {
        let arms = self.arms().filter(|arm| pooled(arm));
        let errors = arms.filter_map(|arm| self.over(&self.shared(&[arm])?, &pooled).error());
        errors.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}
