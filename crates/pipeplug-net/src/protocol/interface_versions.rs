//! Versions of the application's own interface, of which host and guest agree on one at the start
//! (docs/protocol.md, "Interface versions").

use std::collections::BTreeSet;
use std::fmt;

/// Key of the list in the metadata of both sides.
pub const KEY_INTERFACE_VERSIONS: &str = "pipeplug.interface_versions";

/// Versions that an error shows, at most.
const SHOWN: usize = 16;

/// The versions of an interface that one side speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceVersions(BTreeSet<u32>);

/// The side that has to be upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Older {
    /// The plugin.
    Plugin,
    /// The host.
    Host,
}

impl InterfaceVersions {
    /// Adds versions.
    pub fn extend(&mut self, versions: impl IntoIterator<Item = u32>) {
        self.0.extend(versions);
    }

    /// Reads a list of the other side. Words that are no number of 32 bits are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let is_number = |word: &&str| {
            word.bytes().all(|byte| byte.is_ascii_digit())
                && (word.len() == 1 || !word.starts_with('0'))
        };
        Self(text.split(' ').filter(is_number).filter_map(|word| word.parse().ok()).collect())
    }

    /// Tells whether there is no version: the side takes no part in the negotiation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list as it is sent; `None` for a side that takes no part.
    #[must_use]
    pub fn to_offer(&self) -> Option<String> {
        let words: Vec<_> = self.0.iter().map(u32::to_string).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// Chooses the highest version that the other side has as well; `None` if one side has no list.
    ///
    /// # Errors
    /// The list of the other side, if there is no common version.
    pub fn choose(&self, offered: Option<&str>) -> Result<Option<u32>, Self> {
        let Some(offered) = offered.map(Self::parse).filter(|_| !self.is_empty()) else {
            return Ok(None);
        };
        match self.0.intersection(&offered.0).last() {
            Some(version) => Ok(Some(*version)),
            None => Err(offered),
        }
    }

    /// The versions in ascending order.
    #[must_use]
    pub fn into_vec(self) -> Vec<u32> {
        self.0.into_iter().collect()
    }
}

impl Older {
    /// Compares the lists of both sides, which have no version in common: the side whose newest
    /// version is lower is older.
    #[must_use]
    pub(crate) fn of(plugin: &[u32], host: &[u32]) -> Self {
        if plugin.iter().max() < host.iter().max() { Self::Plugin } else { Self::Host }
    }
}

/// Shows the lists of both sides, the side that is older, and the next step.
#[derive(Debug)]
pub struct Mismatch<'a> {
    /// Versions of the plugin.
    pub plugin: &'a [u32],
    /// Versions of the host.
    pub host: &'a [u32],
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, host } = self;
        let advice = match Older::of(plugin, host) {
            Older::Plugin => "the plugin is older: upgrade the plugin",
            Older::Host => {
                "the host is older: upgrade the host, or install an older version of the plugin"
            }
        };
        let (plugin, host) = (List(plugin), List(host));
        write!(f, "the plugin speaks {plugin} of the interface, the host {host}; {advice}")
    }
}

struct List<'a>(&'a [u32]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => return f.write_str("no version that can be read"),
            [only] => return write!(f, "version {only}"),
            _ => f.write_str("versions ")?,
        }
        // The newest tell most.
        let left_out = self.0.len().saturating_sub(SHOWN);
        if left_out > 0 {
            write!(f, "({left_out} older), ")?;
        }
        for (i, version) in self.0[left_out..].iter().enumerate() {
            write!(f, "{}{version}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(versions: &[u32]) -> InterfaceVersions {
        let mut list = InterfaceVersions::default();
        list.extend(versions.iter().copied());
        list
    }

    #[test]
    fn the_highest_common_version_is_chosen_by_both_sides() {
        let (host, guest) = (of(&[4, 2, 3]), of(&[1, 2, 3]));
        assert_eq!(host.to_offer().as_deref(), Some("2 3 4"));
        assert_eq!(host.choose(guest.to_offer().as_deref()), Ok(Some(3)));
        assert_eq!(guest.choose(host.to_offer().as_deref()), Ok(Some(3)));
        assert_eq!(host.choose(Some("7")), Err(of(&[7])));
    }

    #[test]
    fn one_side_without_a_list_negotiates_nothing() {
        assert_eq!(of(&[1]).choose(None), Ok(None));
        assert_eq!(of(&[]).choose(Some("1 2")), Ok(None));
        assert_eq!(of(&[]).to_offer(), None);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_a_mismatch_and_odd_words_are_left_out() {
        assert_eq!(of(&[1]).choose(Some("one")), Err(of(&[])));
        assert_eq!(of(&[1]).choose(Some("")), Err(of(&[])));
        assert_eq!(InterfaceVersions::parse("+1 -2 03 4294967296 1.0 5  0 x"), of(&[0, 5]));
    }

    #[test]
    fn the_message_names_both_lists_and_the_older_side() {
        let text = |plugin: &[u32], host: &[u32]| Mismatch { plugin, host }.to_string();
        assert_eq!(
            text(&[1], &[2, 3]),
            "the plugin speaks version 1 of the interface, the host versions 2, 3; the plugin is older: \
             upgrade the plugin"
        );
        assert!(text(&[4], &[3]).contains("the host is older: upgrade the host"));
        // Neither list is below the other: the newest versions are compared.
        assert!(text(&[2], &[1, 3]).contains("the plugin is older"));
        let many: Vec<_> = (0..100).collect();
        assert!(text(&many, &[100]).contains("versions (84 older), 84, 85"));
        assert!(text(&[], &[1]).contains("no version that can be read"));
    }
}
