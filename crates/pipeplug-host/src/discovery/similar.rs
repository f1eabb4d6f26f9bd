//! The name that was probably meant.

use strsim::osa_distance;

/// The candidate nearest to `name`, if it takes no more than one edit for each three characters: a
/// character more, less, another one, or two that changed places.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let len = name.chars().count();
    let most = (len / 3).max(1);
    // No fewer edits than characters more: what is much longer is not compared, which takes long.
    let is_of_its_length = |other: &&str| other.chars().count().abs_diff(len) <= most;
    candidates
        .filter(is_of_its_length)
        .map(|candidate| (osa_distance(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn offers_only_what_is_near() {
        let names = ["echo", "spell", "spelling"];
        assert_eq!(nearest("ehco", names.into_iter()), Some("echo"));
        assert_eq!(nearest("speling", names.into_iter()), Some("spelling"));
        assert_eq!(nearest("translate", names.into_iter()), None);
        assert_eq!(nearest("x", names.into_iter()), None);
        assert_eq!(nearest("x", [].into_iter()), None);
        // Compared, these two alone would take hours.
        let long = ["x".repeat(10_000_000), "y".repeat(1000)];
        assert_eq!(nearest(&long[0], long[1..].iter().map(String::as_str)), None);
        assert_eq!(nearest("öl", ["ol"].into_iter()), Some("ol"));
    }
}
