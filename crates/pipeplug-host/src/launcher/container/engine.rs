//! What runs containers.

use std::fmt;
use std::path::PathBuf;

use super::carrier;

/// What runs containers, through its client on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// Docker, whose daemon `DOCKER_HOST` and `docker context` choose.
    Docker,
    /// Podman, which needs no daemon.
    Podman,
}

impl Engine {
    /// The first one, Docker ahead of Podman, whose client is in `PATH`; whether it works is another question.
    #[must_use]
    pub fn installed() -> Option<Self> {
        [Self::Docker, Self::Podman].into_iter().find(|engine| engine.path().is_some())
    }

    /// Its client's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    pub(super) fn path(self) -> Option<PathBuf> {
        carrier::find(self.program().as_ref())
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        })
    }
}
