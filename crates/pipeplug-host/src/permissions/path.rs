//! Paths of permissions: absolute, or below a folder that differs on each machine.

use std::fmt;

use super::{PermissionsError, invalid};

/// Folder that a path is below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Base {
    /// `/`.
    Root,
    /// Folder of the plugin's file.
    Plugin,
    /// Home folder of the user.
    Home,
    /// Folder of temporary files, which all programs share.
    Temp,
    /// Working folder of the plugin.
    Cwd,
}

impl Base {
    /// Bases with a placeholder.
    const NAMED: [Self; 4] = [Self::Plugin, Self::Home, Self::Temp, Self::Cwd];

    /// Placeholder at the beginning of a path.
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Plugin => "{plugin}",
            Self::Home => "{home}",
            Self::Temp => "{temp}",
            Self::Cwd => "{cwd}",
        }
    }
}

/// Path of a permission. It has no `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PermittedPath {
    base: Base,
    /// Names of the way from the base, joined by `/`. Empty for the base itself.
    below: String,
}

impl PermittedPath {
    pub(super) fn parse(kind: &'static str, text: &str) -> Result<Self, PermissionsError> {
        let (base, rest) = match text.find('}') {
            _ if text.starts_with('/') => (Base::Root, text),
            Some(end) if text.starts_with('{') => {
                let (placeholder, rest) = text.split_at(end + 1);
                let base = Base::NAMED.into_iter().find(|base| base.placeholder() == placeholder);
                let base = base.ok_or_else(|| PermissionsError::Unknown {
                    what: "the placeholder",
                    name: placeholder.chars().take(100).collect(),
                })?;
                (base, rest)
            }
            _ => {
                let problem =
                    "a path is absolute, or begins with {plugin}, {home}, {temp} or {cwd}";
                return Err(invalid(kind, text, problem));
            }
        };
        if !rest.is_empty() && !rest.starts_with('/') {
            return Err(invalid(kind, text, "a `/` follows a placeholder"));
        }
        let names: Vec<_> = rest.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.contains(&"..") {
            return Err(invalid(kind, text, "it has `..`, which could lead anywhere"));
        }
        if base == Base::Root && matches!(names.first(), Some(&("proc" | "sys" | "dev"))) {
            let problem = "no permission is for /proc, /sys and /dev, which are the system itself";
            return Err(invalid(kind, text, problem));
        }
        Ok(Self { base, below: names.join("/") })
    }

    pub(crate) fn base(&self) -> Base {
        self.base
    }

    pub(crate) fn below(&self) -> &str {
        &self.below
    }

    /// Tells whether a path is this one, or below it.
    pub(super) fn includes(&self, other: &Self) -> bool {
        let rest = (self.base == other.base).then(|| other.below.strip_prefix(&self.below));
        let is_all = self.base == Base::Root && self.below.is_empty();
        let is_below =
            |rest: &str| self.below.is_empty() || rest.is_empty() || rest.starts_with('/');
        is_all || rest.flatten().is_some_and(is_below)
    }
}

impl fmt::Display for PermittedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.placeholder())?;
        if self.base == Base::Root || !self.below.is_empty() {
            f.write_str("/")?;
        }
        f.write_str(&self.below)
    }
}
