//! Continuous batching: a text does not depend on the texts in its batch, and all memory is freed.

mod common;

use common::{CONTEXT, alone, served};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokenformer_core::generate::Sampling;
use tokenformer_serve::Served;
use tokenformer_serve::job::{Event, Job};
use tokenformer_serve::metrics::Metrics;
use tokenformer_serve::scheduler::{Command, Limits, run};
use tokenformer_train::End;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const LIMITS: Limits = Limits {
    batch: 6,
    prompt_tokens: 7,
    cache_bytes: 1 << 20,
    threads: 3,
    logits_per_thread: 300,
    wait: Duration::from_secs(60),
};

/// Runs the thread of the models in parallel with `work`, which gets its commands; returns when all is done.
fn with_models<T>(
    models: &[Served],
    limits: Limits,
    metrics: &Metrics,
    work: impl FnOnce(Sender<Command>) -> T,
) -> T {
    std::thread::scope(|scope| {
        let (commands, receiver) = channel();
        scope.spawn(move || run(models, limits, &receiver, metrics));
        work(commands)
    })
}

fn job(prompt: &[u32], max_tokens: usize, events: &UnboundedSender<(usize, Event)>) -> Job {
    Job {
        model: 0,
        newest_stage: None,
        prompt: prompt.into(),
        max_tokens,
        sampling: Sampling {
            temperature: 1.0,
            seed: 7,
            ..Sampling::default()
        },
        bias: Vec::new(),
        stops: Vec::new(),
        alternatives: None,
        scores_prompt: false,
        index: 0,
        events: events.clone(),
    }
}

/// The tokens, text and end of one text.
fn collect(mut events: UnboundedReceiver<(usize, Event)>) -> (Vec<u32>, String, Option<End>) {
    let (mut tokens, mut all, mut end) = (Vec::new(), String::new(), None);
    while let Some((_, event)) = events.blocking_recv() {
        match event {
            Event::Token { token, text, .. } => {
                tokens.push(token);
                all += &text;
            }
            Event::End(why, text) => {
                all += &text;
                end = Some(why);
            }
            Event::Prompt(_) => {}
            other => panic!("{other:?}"),
        }
    }
    (tokens, all, end)
}

#[derive(Clone, Debug)]
struct Wish {
    /// Which of three beginnings, and how many tokens of it.
    beginning: (u32, usize),
    own: Vec<u32>,
    max_tokens: usize,
    seed: u64,
    hot: bool,
    stage: bool,
    model: usize,
    scores_prompt: bool,
    /// Whether its reader leaves after the first event.
    leaves: bool,
    pause_us: u64,
}

fn wish() -> impl Strategy<Value = Wish> {
    let numbers = (
        0u32..3,
        0usize..30,
        prop::collection::vec(0u32..256, 1..12),
        0usize..40,
    );
    let flags = (
        any::<bool>(),
        any::<bool>(),
        0usize..2,
        any::<bool>(),
        0u8..5,
    );
    (numbers, flags, 0u64..4, 0u64..3000).prop_map(
        |(
            (which, shared, own, max_tokens),
            (hot, stage, model, scores, leaves),
            seed,
            pause_us,
        )| Wish {
            beginning: (which, shared),
            own,
            max_tokens,
            seed,
            hot,
            stage,
            model,
            scores_prompt: scores,
            leaves: leaves == 0,
            pause_us,
        },
    )
}

impl Wish {
    fn prompt(&self) -> Vec<u32> {
        let beginning = (0..self.beginning.1 as u32).map(|i| (i * 31 + self.beginning.0 * 7) % 256);
        beginning.chain(self.own.iter().copied()).collect()
    }

    fn job(&self, events: &UnboundedSender<(usize, Event)>) -> Job {
        let temperature = if self.hot { 1.3 } else { 0.0 };
        Job {
            model: self.model,
            newest_stage: self.stage.then_some(0),
            sampling: Sampling {
                temperature,
                seed: self.seed,
                ..Sampling::default()
            },
            stops: vec!["zq".into(), "e".into()],
            alternatives: self.scores_prompt.then_some(2),
            scores_prompt: self.scores_prompt,
            ..job(&self.prompt(), self.max_tokens, events)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        rng_seed: RngSeed::Fixed(5),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn any_mix_gives_each_text_what_it_gets_alone(
        wishes in prop::collection::vec(wish(), 1..14),
        cache_positions in 60usize..400,
    ) {
        let models = [served("a", 1), served("b", 2)];
        let limits = Limits { cache_bytes: cache_positions * 2 * 2 * 32 * 4, ..LIMITS };
        let metrics = Metrics::default();
        let answers = with_models(&models, limits, &metrics, |commands| {
            let readers: Vec<_> = wishes.iter().map(|wish| {
                std::thread::sleep(Duration::from_micros(wish.pause_us));
                let (sender, events) = unbounded_channel();
                commands.send(Command::Continue(vec![wish.job(&sender)])).unwrap();
                drop(sender);
                let leaves = wish.leaves;
                std::thread::spawn(move || {
                    let mut events = events;
                    match leaves {
                        true => {
                            events.blocking_recv();
                            None
                        }
                        false => Some(collect(events)),
                    }
                })
            }).collect();
            drop(commands);
            readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
        });
        for (wish, answer) in wishes.iter().zip(answers) {
            let Some((tokens, text, end)) = answer else { continue };
            let (events, _) = unbounded_channel();
            let job = wish.job(&events);
            let want = alone(
                &models[wish.model], &job.prompt, job.max_tokens, &job.sampling, &job.stops, job.newest_stage,
            );
            prop_assert_eq!((tokens, text, end), (want.tokens, want.text, Some(want.end)), "{:?}", wish);
        }
    }
}

#[test]
fn a_common_beginning_is_computed_once() {
    let models = [served("a", 1)];
    let metrics = Metrics::default();
    let prompt: Vec<u32> = (0..30).collect();
    let want = alone(
        &models[0],
        &prompt,
        10,
        &job(&prompt, 10, &unbounded_channel().0).sampling,
        &[],
        None,
    );
    with_models(&models, LIMITS, &metrics, |commands| {
        let (sender, mut events) = unbounded_channel();
        let texts = |first: usize| {
            (first..first + 3)
                .map(|index| Job {
                    index,
                    ..job(&prompt, 10, &sender)
                })
                .collect()
        };
        commands.send(Command::Continue(texts(0))).unwrap();
        commands.send(Command::Continue(texts(3))).unwrap();
        drop(sender);
        let mut tokens = vec![Vec::new(); 6];
        while let Some((index, event)) = events.blocking_recv() {
            if let Event::Token { token, .. } = event {
                tokens[index].push(token);
            }
        }
        for tokens in tokens {
            assert_eq!(tokens, want.tokens);
        }
    });
    // All but the last token of the prompt were copied for five of the six.
    assert_eq!(metrics.prompt_tokens.load(Relaxed), 6 * 30);
    assert_eq!(metrics.shared_tokens.load(Relaxed), 5 * 29);
}

#[test]
fn a_reader_who_leaves_frees_the_place() {
    let models = [served("a", 1)];
    let metrics = Metrics::default();
    let limits = Limits { batch: 1, ..LIMITS };
    with_models(&models, limits, &metrics, |commands| {
        let never_ends = |events: &_| Job {
            bias: vec![(256, -100.0)],
            ..job(&[1], CONTEXT, events)
        };
        let (first, mut reader) = unbounded_channel();
        commands
            .send(Command::Continue(vec![never_ends(&first)]))
            .unwrap();
        // One that waits and leaves without having begun.
        let (second, _) = unbounded_channel();
        commands
            .send(Command::Continue(vec![never_ends(&second)]))
            .unwrap();
        drop((first, second));
        reader.blocking_recv().unwrap();
        drop(reader);
        let (third, reader) = unbounded_channel();
        commands
            .send(Command::Continue(vec![job(&[2], 3, &third)]))
            .unwrap();
        drop(third);
        assert!(collect(reader).2.is_some());
    });
    assert_eq!(metrics.running.load(Relaxed), 0);
    assert!(metrics.cancelled.load(Relaxed) >= 1);
}

/// The order in which the texts of some requests end, and of one more that comes when the first token is told. The others are
/// all there before the first text begins, however slow this thread is.
fn order_of_ends(
    models: &[Served],
    limits: Limits,
    requests: impl FnOnce(&UnboundedSender<(usize, Event)>) -> (Vec<Vec<Job>>, Vec<Job>),
) -> Vec<usize> {
    let metrics = Metrics::default();
    let (sender, mut events) = unbounded_channel();
    let (requests, mut late) = requests(&sender);
    drop(sender);
    let (commands, receiver) = channel();
    for request in requests {
        commands.send(Command::Continue(request)).unwrap();
    }
    std::thread::scope(|scope| {
        let metrics = &metrics;
        scope.spawn(move || run(models, limits, &receiver, metrics));
        let mut ended = Vec::new();
        while let Some((index, event)) = events.blocking_recv() {
            if matches!(event, Event::Token { .. }) && !late.is_empty() {
                let late = std::mem::take(&mut late);
                commands.send(Command::Continue(late)).unwrap();
            }
            if matches!(event, Event::End(..)) {
                ended.push(index);
            }
        }
        drop(commands);
        ended
    })
}

/// Texts with a common prompt whose first token is `of`, and numbers from 1000 times that on.
fn texts(
    of: u32,
    prompt_tokens: u32,
    count: usize,
    events: &UnboundedSender<(usize, Event)>,
) -> Vec<Job> {
    let prompt: Vec<u32> = (of..of + prompt_tokens).collect();
    let text = |i| Job {
        index: 1000 * of as usize + i,
        bias: vec![(256, -100.0)],
        ..job(&prompt, 8, events)
    };
    (0..count).map(text).collect()
}

#[test]
fn one_request_of_many_texts_keeps_no_other_waiting() {
    let models = [served("a", 1)];
    for (batch, prompt_tokens) in [(1, 1), (1, 9), (1, 30), (2, 9), (2, 30)] {
        let limits = Limits { batch, ..LIMITS };
        let ended = order_of_ends(&models, limits, |events| {
            let many = texts(1, prompt_tokens, 9, events);
            let one = texts(2, prompt_tokens, 1, events);
            (vec![many, one], Vec::new())
        });
        assert_eq!(ended.len(), 10);
        let place = ended.iter().position(|&index| index == 2000).unwrap();
        assert!(place < 4, "{prompt_tokens}: ended as number {place}");
    }
}

#[test]
fn texts_that_wait_for_their_common_beginning_keep_no_later_request_waiting() {
    let models = [served("a", 1)];
    let limits = Limits { batch: 2, ..LIMITS };
    let ended = order_of_ends(&models, limits, |events| {
        let many = texts(1, 30, 400, events);
        (vec![many], texts(2, 1, 1, events))
    });
    assert_eq!(ended.len(), 401);
    let place = ended.iter().position(|&index| index == 2000).unwrap();
    assert!(place < 300, "ended as number {place}");
}

#[test]
fn prompts_of_one_model_keep_no_other_waiting() {
    let models = [served("a", 1), served("b", 2)];
    let other_model = (1, None);
    let other_stage = (0, Some(0));
    for (model, newest_stage) in [other_model, other_stage] {
        let ended = order_of_ends(&models, LIMITS, |events| {
            let different = (0..64).map(|i| Job {
                index: i,
                ..job(&[i as u32; 40], 1, events)
            });
            let small = Job {
                model,
                newest_stage,
                index: 2000,
                ..job(&[1, 2, 3], 1, events)
            };
            (vec![different.collect(), vec![small]], Vec::new())
        });
        assert_eq!(ended.len(), 65);
        let place = ended.iter().position(|&index| index == 2000).unwrap();
        assert!(place < 4, "ended as number {place}");
    }
}

#[test]
fn who_waits_too_long_is_told() {
    let models = [served("a", 1)];
    let metrics = Metrics::default();
    let limits = Limits {
        batch: 1,
        wait: Duration::ZERO,
        ..LIMITS
    };
    with_models(&models, limits, &metrics, |commands| {
        let (sender, mut events) = unbounded_channel();
        commands
            .send(Command::Continue(vec![job(&[1], 3, &sender)]))
            .unwrap();
        drop(sender);
        assert_eq!(events.blocking_recv(), Some((0, Event::Busy)));
        assert_eq!(events.blocking_recv(), None);
    });
}

#[test]
fn probabilities_of_prompt_and_text_are_those_of_the_model() {
    let models = [served("a", 1)];
    let metrics = Metrics::default();
    let prompt: Vec<u32> = (40..60).collect();
    let (scored, chosen) = with_models(&models, LIMITS, &metrics, |commands| {
        let (sender, mut events) = unbounded_channel();
        let wish = Job {
            alternatives: Some(3),
            scores_prompt: true,
            ..job(&prompt, 2, &sender)
        };
        commands.send(Command::Continue(vec![wish])).unwrap();
        drop(sender);
        let (mut scored, mut chosen) = (Vec::new(), Vec::new());
        while let Some((_, event)) = events.blocking_recv() {
            match event {
                Event::Prompt(token_logprobs) => scored = token_logprobs,
                Event::Token { token_logprob, .. } => chosen.extend(token_logprob),
                _ => {}
            }
        }
        (scored, chosen)
    });
    let all: Vec<u32> = prompt
        .iter()
        .copied()
        .chain(chosen.iter().map(|c| c.token))
        .collect();
    let logits = models[0].model.infer(&all[..all.len() - 1], 1).unwrap();
    let rows: Vec<&[f32]> = logits.chunks(models[0].model.vocab()).collect();
    assert_eq!(scored.len(), prompt.len());
    assert_eq!(scored[0].logprob, None);
    for (i, token_logprob) in scored.iter().chain(&chosen).enumerate().skip(1) {
        assert_eq!(token_logprob.token, all[i]);
        let row = rows[i - 1];
        let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
        let want = f64::from(row[all[i] as usize]) - sum.ln();
        assert!((f64::from(token_logprob.logprob.unwrap()) - want).abs() < 1e-5);
        assert_eq!(token_logprob.top.len(), 3);
        assert!(
            token_logprob.top[0].1 >= token_logprob.top[1].1
                && token_logprob.top[1].1 >= token_logprob.top[2].1
        );
    }
}
