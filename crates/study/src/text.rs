//! Generated text with some structure: words of syllables, frequent and rare ones, each with likely successors.

use tokenformer_data::Document;

/// What a text is made of.
pub struct Language {
    /// Its name.
    pub name: &'static str,
    seed: u64,
    syllables: [&'static str; 24],
}

/// The language of the study's text.
pub const FIRST: Language = Language {
    name: "made-up text",
    seed: 0x9e37_79b9_7f4a_7c15,
    syllables: [
        "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu",
        "va", "we", "zi", "cho", "shu", "tha", "ple", "sto", "bri",
    ],
};

/// The language of the text that trained models learn.
pub const SECOND: Language = Language {
    name: "made-up text of another language",
    seed: 0x0123_4567_89ab_cdef,
    syllables: [
        "ab", "ek", "id", "of", "ug", "ax", "ej", "iq", "ol", "um", "an", "ep", "ir", "os", "ut",
        "av", "ew", "yz", "och", "ush", "aft", "elp", "ost", "irb",
    ],
};

const WORDS: usize = 600;
/// Number of likely successors of a word.
const FOLLOWERS: usize = 6;
const DOCUMENT_BYTES: usize = 4000;
/// A generator of numbers that are the same everywhere (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n
    }

    /// A number below `n`, low ones more often, as words are in texts.
    fn skewed(&mut self, n: usize) -> usize {
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (((n as f64 + 1.0).powf(share) - 1.0) as usize).min(n - 1)
    }
}

/// Documents of about `bytes` in all, the same each time.
pub fn documents(language: &Language, bytes: usize) -> Vec<Document> {
    let mut numbers = Numbers(language.seed);
    let words: Vec<String> = (0..WORDS)
        .map(|_| {
            let syllables = 1 + numbers.below(3);
            (0..syllables)
                .map(|_| language.syllables[numbers.below(language.syllables.len())])
                .collect()
        })
        .collect();
    let followers: Vec<[usize; FOLLOWERS]> = words
        .iter()
        .map(|_| std::array::from_fn(|_| numbers.skewed(WORDS)))
        .collect();
    (0..bytes.div_ceil(DOCUMENT_BYTES))
        .map(|number| {
            let mut text = String::new();
            while text.len() < DOCUMENT_BYTES {
                sentence(&words, &followers, &mut numbers, &mut text);
            }
            Document {
                source: format!("{number}"),
                text,
            }
        })
        .collect()
}

fn sentence(
    words: &[String],
    followers: &[[usize; FOLLOWERS]],
    numbers: &mut Numbers,
    text: &mut String,
) {
    let mut word = numbers.skewed(WORDS);
    for place in 0..4 + numbers.below(9) {
        if place > 0 {
            text.push(' ');
            // One word in five is any word.
            word = match numbers.below(5) {
                0 => numbers.skewed(WORDS),
                _ => followers[word][numbers.skewed(FOLLOWERS)],
            };
        }
        text.push_str(&words[word]);
    }
    text.push_str(".\n");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_text_is_the_same_each_time_and_long_enough() {
        let texts = super::documents(&super::FIRST, 100_000);
        assert_eq!(texts, super::documents(&super::FIRST, 100_000));
        assert_ne!(texts, super::documents(&super::SECOND, 100_000));
        let bytes: usize = texts.iter().map(|d| d.text.len()).sum();
        assert!((100_000..110_000).contains(&bytes), "{bytes}");
    }
}
