//! Texts at which a generated text ends.

/// Holds text back for as long as it could be the beginning of a stop text.
#[derive(Debug, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
    found: bool,
}

impl StopFilter {
    /// A filter for these texts; empty ones never occur.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        Self {
            stops,
            ..Self::default()
        }
    }

    /// Takes the next piece of the text. Returns the part that no stop text can remove any more, and whether a stop text was found.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.found {
            return (String::new(), true);
        }
        self.held += text;
        // The stop text that is complete first counts, however the text is cut into tokens; of several that end in
        // one place the longest.
        let ends = self.stops.iter().filter_map(|stop| {
            let at = self.held.find(stop.as_str())?;
            Some((at + stop.len(), at))
        });
        if let Some((_, at)) = ends.min() {
            self.found = true;
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let longest = |stop: &String| {
            (1..stop.len())
                .rev()
                .find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n]))
                .unwrap_or(0)
        };
        let keep = self.stops.iter().map(longest).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is still held back when the text ends.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::StopFilter;

    fn run(stops: &[&str], parts: &[&str]) -> String {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut filter = StopFilter::new(&stops);
        let mut out = String::new();
        for part in parts {
            let (ready, found) = filter.push(part);
            out += &ready;
            if found {
                return out;
            }
        }
        out + &filter.finish()
    }

    #[test]
    fn a_stop_text_split_over_tokens_is_found_and_not_printed() {
        assert_eq!(run(&["END"], &["abc E", "N", "D more"]), "abc ");
        assert_eq!(run(&["END"], &["abc EN", "E", "x"]), "abc ENEx");
        assert_eq!(run(&["é!", "b"], &["aé", "?é", "!z"]), "aé?");
        assert_eq!(run(&["€\nz"], &["aé", "€", "\n", "zb"]), "aé");
        assert_eq!(run(&["-x", ""], &["a-", "-x-"]), "a-");
        assert_eq!(run(&[], &["a", "b"]), "ab");
    }

    #[test]
    fn the_first_complete_stop_text_counts_however_the_text_is_cut() {
        for (stops, want) in [
            (["CDx", "CDE", "DEF"], "AB"),
            (["BCDE", "C", "CDE"], "AB"),
            (["CD", "ABCD", "BCDEF"], ""),
            (["xy", "GH", "FGHI"], "ABCDEF"),
        ] {
            for parts in [
                &["A", "B", "C", "D", "E", "F", "G", "H", "I"][..],
                &["ABC", "DE", "FGHI"],
                &["ABCDEFGHI"],
            ] {
                assert_eq!(run(&stops, parts), want, "{stops:?} in {parts:?}");
            }
        }
    }
}
