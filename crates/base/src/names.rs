//! Names that are similar to one that was not found.

/// The name among `known` that is nearest to `name`, if any is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The comparison takes memory in proportion to the product of both lengths, so longer names are not compared.
    const LONGEST: usize = 100;
    if name.len() > LONGEST {
        return None;
    }
    let distance = |k: &str| strsim::damerau_levenshtein(name, k);
    let known = known.into_iter().filter(|known| known.len() <= LONGEST);
    let best = known.min_by_key(|k| distance(k))?;
    (distance(best) <= 1 + name.chars().count() / 3).then_some(best)
}

/// Up to three names among `known` that look like `name`, the most similar first.
pub fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    const MOST: usize = 3;
    // A hostile file may hold many long names; comparing them all would take minutes.
    const LENGTH_DIFFERENCE: usize = 32;
    const LONGEST: usize = 1000;
    if name.len() > LONGEST {
        return Vec::new();
    }
    let mut alike: Vec<(usize, &str)> = (known.into_iter())
        .filter(|other| other.len().abs_diff(name.len()) <= LENGTH_DIFFERENCE)
        .map(|other| (strsim::levenshtein(name, other), other))
        .filter(|&(distance, other)| distance <= name.len().max(other.len()) / 2)
        .collect();
    alike.sort_unstable();
    let names = alike.into_iter().take(MOST);
    names.map(|(_, other)| other.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_offered() {
        assert_eq!(nearest("lasyers", ["width", "layers"]), Some("layers"));
        assert_eq!(nearest("depth", ["width", "layers"]), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(nearest(&"x".repeat(101), ["x"]), None);
        assert_eq!(nearest("x", [&*"x".repeat(1 << 20)]), None);
    }

    #[test]
    fn similar_names_come_in_order() {
        let known = ["wte.weight", "wpe.weight", "h.0.attn.bias", "w"];
        assert_eq!(similar("wte.weigth", known), ["wte.weight", "wpe.weight"]);
        assert!(similar("zzz", known).is_empty());
        let long = "n".repeat(1 << 20);
        assert!(similar(&long, [&*long]).is_empty());
    }
}
