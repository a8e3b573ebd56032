//! Probabilities of tokens.

use crate::job::TokenLogprobs;

/// The probability of `token` by `logits` `[V]`, with the `count` likeliest tokens. Ties go to the lower number.
pub(crate) fn of_token(logits: &[f32], token: u32, count: usize) -> TokenLogprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    let log_sum = f64::from(max) + sum.ln();
    let logprob = |logit: f32| (f64::from(logit) - log_sum) as f32;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let of = |i: u32| logits[i as usize];
    let before = |a: &u32, b: &u32| of(*b).total_cmp(&of(*a)).then(a.cmp(b));
    let count = count.min(order.len());
    if 0 < count && count < order.len() {
        order.select_nth_unstable_by(count - 1, before);
    }
    order.truncate(count);
    order.sort_unstable_by(before);
    TokenLogprobs {
        token,
        logprob: logits.get(token as usize).map(|&logit| logprob(logit)),
        top: order.into_iter().map(|i| (i, logprob(of(i)))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::of_token;

    #[test]
    fn probabilities_add_up_and_ties_go_to_the_lower_number() {
        let logits = [1.0, 3.0, 3.0, -2.0];
        let all = of_token(&logits, 3, 9);
        let sum: f32 = all.top.iter().map(|(_, l)| l.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        let ids: Vec<u32> = all.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 2, 0, 3]);
        assert_eq!(all.logprob, Some(all.top[3].1));
        assert_eq!(of_token(&logits, 0, 2).top, all.top[..2]);
        assert!(of_token(&logits, 0, 0).top.is_empty());
    }
}
