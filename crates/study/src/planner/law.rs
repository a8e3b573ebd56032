//! Loss as a function of size and text, and how a growth moves along it.

use serde::{Deserialize, Serialize};

/// A stage of a training: a size, and the tokens seen at it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Effective parameters: floating-point operations of training on one token, divided by 6.
    pub size: f64,
    /// Tokens seen in this stage.
    pub tokens: f64,
}

/// The number of a law's parameters.
pub(super) const PARAMETERS: usize = 7;

/// `L(N, D) = E + A·(N/N₀)^-α + B·(D/D₀)^-β` in nats per token, the form of Hoffmann et al. 2022 (equation 10), where `N` are
/// effective parameters and `D` tokens, and what growth and decay do to it.
///
/// A growth keeps the function, so a model of `N` parameters that has seen `D` tokens continues as one of `N'` parameters that
/// has seen the `D'` of `L(N', D') = L(N, D)`. From there on it needs `k` tokens for one of a model from scratch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Law {
    /// Loss of an unlimited model on unlimited text.
    pub e: f64,
    /// Loss that a model of `n0` parameters adds.
    pub a: f64,
    /// Loss that a text of `d0` tokens adds.
    pub b: f64,
    /// Exponent of the size.
    pub alpha: f64,
    /// Exponent of the text.
    pub beta: f64,
    /// Relative excess of a loss at a learning rate that has not decayed.
    pub undecayed: f64,
    /// Tokens that a grown model needs for one of a model from scratch.
    pub k: f64,
    /// Size at which `a` holds.
    pub n0: f64,
    /// Tokens at which `b` holds.
    pub d0: f64,
}

impl Law {
    /// The law of logarithms of its parameters; all are above 0.
    pub(super) fn of(logs: &[f64; PARAMETERS], [n0, d0]: [f64; 2]) -> Self {
        let [e, a, b, alpha, beta, undecayed, k] = logs.map(f64::exp);
        Self {
            e,
            a,
            b,
            alpha,
            beta,
            undecayed,
            k,
            n0,
            d0,
        }
    }

    /// The part of the loss that a size adds.
    fn of_size(&self, size: f64) -> f64 {
        self.a * (size / self.n0).powf(-self.alpha)
    }

    /// Loss of a model from scratch, after a decay.
    pub fn loss(&self, size: f64, tokens: f64) -> f64 {
        self.e + self.of_size(size) + self.b * (tokens / self.d0).powf(-self.beta)
    }

    /// Tokens after which a model from scratch has a loss; `None` if it never has.
    pub fn tokens_for(&self, size: f64, loss: f64) -> Option<f64> {
        let left = loss - self.e - self.of_size(size);
        (left > 0.0).then(|| self.d0 * (left / self.b).powf(-1.0 / self.beta))
    }

    /// Loss after the stages of a training, after a decay; `None` for no stages, or a growth to a smaller size.
    pub fn loss_after(&self, stages: &[Stage]) -> Option<f64> {
        let (first, grown) = stages.split_first()?;
        let mut loss = self.loss(first.size, first.tokens);
        for stage in grown {
            let tokens = self.tokens_for(stage.size, loss)? + stage.tokens / self.k;
            loss = self.loss(stage.size, tokens);
        }
        Some(loss)
    }

    /// The law by which a model that has grown before grows again: it needs `k` times the tokens with and without the
    /// growth, so that `k` drops out of [`Law::tokens_before_growth`].
    pub(super) fn of_grown(&self) -> Self {
        Self { k: 1.0, ..*self }
    }

    /// The equivalent tokens of a size from which on a larger one lowers the loss more for the same cost: where
    /// `(D/D')^(β+1) = k·c`, with the tokens `D'` of the larger size that have the same loss, and `c` the ratio of the costs of a
    /// token.
    pub fn tokens_before_growth(&self, size: f64, larger: f64, cost_ratio: f64) -> Option<f64> {
        let gain = self.of_size(size) - self.of_size(larger);
        let exponent = self.beta / (1.0 + self.beta);
        let price = (self.k * cost_ratio).powf(exponent) - 1.0;
        let tokens = self.d0 * (self.b / gain * price.max(0.0)).powf(1.0 / self.beta);
        (gain > 0.0 && tokens.is_finite()).then_some(tokens)
    }
}
