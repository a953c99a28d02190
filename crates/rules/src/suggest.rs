//! "Did you mean": the nearest name by edit distance (Damerau–Levenshtein, restricted; Wagner and Fischer's algorithm).

/// The candidate nearest to `name`, if it is near enough to be a slip of the fingers: at most a third of its letters
/// differ, case aside.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A metric's name has at most 128 bytes, so that the table stays small.
    let name: Vec<char> = name.to_lowercase().chars().take(128).collect();
    let allowed = (name.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&name, &candidate.to_lowercase().chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            let mut best =
                (at(&above, j) + usize::from(x != y)).min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_another_word_is_not() {
        let names = ["avg", "temperature", "stddev", "CO2"];
        assert_eq!(nearest("avgg", names), Some("avg"));
        assert_eq!(nearest("temprature", names), Some("temperature"));
        assert_eq!(nearest("tempertaure", names), Some("temperature"));
        assert_eq!(nearest("co2", names), Some("CO2"));
        assert_eq!(nearest("humidity", names), None);
    }
}
