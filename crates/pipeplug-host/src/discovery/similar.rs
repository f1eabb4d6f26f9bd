//! The name that was probably meant.

/// The candidate nearest to `name`, if it takes no more than one edit for each three characters: a
/// character more, less, another one, or two that changed places.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance: the number of characters to insert, delete, replace, or swap
/// with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut last_char = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != *y);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if j > 0 && last_char == Some(*y) && b[j - 1] == x {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
        last_char = Some(x);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("spell", "spell", 0),
            ("spell", "spel", 1),
            ("spell", "spelt", 1),
            ("spell", "psell", 1),
            ("kitten", "sitting", 3),
            ("öl", "ol", 1),
        ] {
            assert_eq!(distance(a, b), edits, "{a:?} {b:?}");
            assert_eq!(distance(b, a), edits, "{b:?} {a:?}");
        }
    }

    #[test]
    fn offers_only_what_is_near() {
        let names = ["echo", "spell", "spelling"];
        assert_eq!(nearest("ehco", names.into_iter()), Some("echo"));
        assert_eq!(nearest("speling", names.into_iter()), Some("spelling"));
        assert_eq!(nearest("translate", names.into_iter()), None);
        assert_eq!(nearest("x", names.into_iter()), None);
        assert_eq!(nearest("x", [].into_iter()), None);
    }
}
