//! Evaluation windows score every token but the first exactly once.

use proptest::prelude::*;
use tokenformer_data::{Error, EvalWindow, EvalWindows};

fn windows(windows: EvalWindows<Vec<u32>>) -> Vec<EvalWindow> {
    windows.map(Result::unwrap).collect()
}

proptest! {
    #[test]
    fn every_token_but_the_first_is_scored_once(
        len in 2_usize..300,
        context in 1_usize..40,
        stride in any::<proptest::sample::Index>(),
        is_sliding in any::<bool>(),
    ) {
        let stride = stride.index(context) + 1;
        let text: Vec<u32> = (0..len as u32).collect();
        let all = match is_sliding {
            true => EvalWindows::sliding(text.clone(), context, stride).unwrap(),
            false => EvalWindows::chunked(text.clone(), context).unwrap(),
        };
        prop_assert_eq!(all.scored_tokens(), len - 1);
        let count = all.len();
        let all = windows(all);
        prop_assert_eq!(all.len(), count);
        let mut scored = Vec::new();
        for (index, window) in all.iter().enumerate() {
            prop_assert!((2..=context + 1).contains(&window.tokens.len()));
            prop_assert_eq!(&window.tokens, &text[window.start..window.start + window.tokens.len()]);
            prop_assert!(window.first_scored >= 1);
            scored.extend_from_slice(&window.tokens[window.first_scored..]);
            if is_sliding && index > 0 {
                prop_assert_eq!(window.tokens.len(), context + 1);
                prop_assert!(window.first_scored > context - stride);
            }
        }
        prop_assert_eq!(scored, &text[1..]);
    }
}

#[test]
fn the_remaining_count_is_exact_all_along() {
    let mut windows = EvalWindows::sliding(vec![0; 23], 5, 2).unwrap();
    let mut expected = windows.len();
    while windows.next().is_some() {
        expected -= 1;
        assert_eq!(windows.len(), expected);
    }
    assert_eq!(expected, 0);
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let text = vec![1, 2, 3];
    assert!(matches!(
        EvalWindows::chunked(vec![1], 4),
        Err(Error::TooShort { .. })
    ));
    for (context, stride) in [(0, 1), (4, 0), (4, 5)] {
        let error = EvalWindows::sliding(text.clone(), context, stride).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
    }
    let all = windows(EvalWindows::sliding(text, usize::MAX, usize::MAX).unwrap());
    assert_eq!(all.len(), 1);
}
