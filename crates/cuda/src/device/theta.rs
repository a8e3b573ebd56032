//! `Θ` of a site, a launch for each norm group.

use super::Cuda;
use super::launch::{ROW_THREADS, args, named, size};
use super::storage::{floats, number, of_type};
use crate::gpu::{Arg, Number};
use tokenformer_device::{Buffer, Result, SiteRef, Theta};

fn kernel(theta: Theta, number: Number) -> &'static str {
    match theta {
        Theta::L2NormGelu => named!("theta_l2_norm_gelu", number),
        Theta::L1NormGelu => named!("theta_l1_norm_gelu", number),
        Theta::GeluL2Norm => named!("theta_gelu_l2_norm", number),
        Theta::Softmax => named!("theta_softmax", number),
        Theta::Gelu => named!("theta_gelu", number),
    }
}

fn backward_kernel(theta: Theta, number: Number) -> &'static str {
    match theta {
        Theta::L2NormGelu => named!("theta_l2_norm_gelu_backward", number),
        Theta::L1NormGelu => named!("theta_l1_norm_gelu_backward", number),
        Theta::GeluL2Norm => named!("theta_gelu_l2_norm_backward", number),
        Theta::Softmax => named!("theta_softmax_backward", number),
        Theta::Gelu => named!("theta_gelu_backward", number),
    }
}

/// The arguments that say where a group's columns are: row stride, first column, tokens, group, groups, τ, ε.
fn group_args(site: &SiteRef<'_>, group: usize) -> [Arg; 7] {
    let (segments, tau) = site.group(group);
    let (start, end) = (site.offset(segments.start), site.offset(segments.end));
    let sizes = [site.tokens(), start, end - start, group, site.groups()];
    let [stride, start, tokens, group, groups] = sizes.map(|x| Arg::from(size(x)));
    [
        stride,
        start,
        tokens,
        group,
        groups,
        tau.into(),
        site.eps.into(),
    ]
}

impl Cuda {
    pub(super) fn theta_of_rows(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()> {
        let (rows, number) = (scores.len() / site.tokens(), number(scores));
        assert_eq!(stats.len(), rows * site.groups());
        let kernel = kernel(site.theta, number);
        for group in 0..site.groups() {
            let mut all = args![of_type(scores, number), floats(stats)].to_vec();
            all.extend(group_args(site, group));
            // SAFETY: the group's columns lie inside of the rows, and there is a statistic per row and group.
            unsafe { self.each_row(kernel, rows, ROW_THREADS, &all)? };
        }
        Ok(())
    }

    pub(super) fn theta_of_rows_backward(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        stats: &Buffer,
        d_scores: &mut Buffer,
    ) -> Result<()> {
        let (rows, number) = (scores.len() / site.tokens(), number(scores));
        assert!(stats.len() == rows * site.groups() && d_scores.len() == scores.len());
        let kernel = backward_kernel(site.theta, number);
        for group in 0..site.groups() {
            let (scores, d) = (of_type(scores, number), of_type(d_scores, number));
            let mut all = args![scores, floats(stats), d].to_vec();
            all.extend(group_args(site, group));
            // SAFETY: as above.
            unsafe { self.each_row(kernel, rows, ROW_THREADS, &all)? };
        }
        Ok(())
    }
}
