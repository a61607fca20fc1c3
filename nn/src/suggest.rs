//! "Did you mean": the known name that somebody meant, or the list of all.

/// The candidate that `text` is a slip of the hand from, whatever the letter case: the same letters in
/// another order, or at most one edit in four letters. Further away it is another word.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let wanted = text.to_lowercase();
    let near = candidates.into_iter().filter_map(|candidate| {
        let known = candidate.to_lowercase();
        let edits = strsim::damerau_levenshtein(&wanted, &known);
        let limit = wanted.chars().count().max(known.chars().count()) / 4;
        let swapped = edits == 1 && letters(&wanted) == letters(&known);
        (edits <= limit || swapped).then_some((edits, candidate))
    });
    near.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}

/// What to say after "there is no X": "; did you mean Y?", or "; choose one of A, B, C" when nothing is near.
pub fn hint<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(text, candidates.clone()) {
        Some(near) => format!("; did you mean {near}?"),
        None => {
            format!("; choose one of {}", candidates.into_iter().collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_seen_and_another_word_is_not_bent_into_a_known_one() {
        let methods = ["NONE", "KD", "KD_SWAP", "SLD", "MLKD", "DKD"];
        for (typed, meant) in [("sld", "SLD"), ("SDL", "SLD"), ("KDSWAP", "KD_SWAP"), ("MKLD", "MLKD")] {
            assert_eq!(nearest(typed, methods), Some(meant));
        }
        for typed in ["AT", "RKD", "CRD", "PKT", "SP", "NST", "VID", "OFD", "FITNET", "REVIEWKD", "KDSVD", ""]
        {
            assert_eq!(nearest(typed, methods), None, "{typed}");
        }
        assert_eq!(hint("AT", methods), "; choose one of NONE, KD, KD_SWAP, SLD, MLKD, DKD");
        assert_eq!(hint("cifar-100", ["cifar10", "cifar100"]), "; did you mean cifar100?");
    }
}
