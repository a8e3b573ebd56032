//! Bodies of requests to the server.

use tokenformer_serve::request::{
    ChatRequest, CompletionRequest, DetokenizeRequest, FiredRequest, TokenizeRequest, parse,
};

use super::MIB;
use crate::memory::bounded;

/// Reads the input as the body of every kind of request; errors have to be answers.
pub fn run(input: &[u8]) {
    bounded(input, MIB, || {
        let errors = [
            parse::<CompletionRequest>(input)
                .and_then(|request| request.common())
                .err(),
            parse::<ChatRequest>(input)
                .and_then(|request| request.common())
                .err(),
            parse::<TokenizeRequest>(input).err(),
            parse::<DetokenizeRequest>(input).err(),
            parse::<FiredRequest>(input).err(),
        ];
        for error in errors.into_iter().flatten() {
            assert_eq!(error.status.as_u16(), 400);
            assert!(!error.help.is_empty() && error.body().to_string().len() < 4096);
        }
    });
}
