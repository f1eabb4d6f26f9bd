//! Stand-in for the sandbox in a build without the feature `sandbox`.

mod start;

use std::path::{Path, PathBuf};
use std::slice;

pub(crate) use self::start::{Extent, ImageKind, Plugin, Prepared, Terminal};
use crate::process::{SpawnErrorKind, WaitStatus};
use crate::sys::ForkExecError;

/// A sandbox, which no plugin has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sandbox {}

impl Sandbox {
    pub(crate) fn prepare(&self, _: Plugin<'_>, _: Extent) -> Result<Prepared, SpawnErrorKind> {
        match *self {}
    }

    pub(crate) fn go_without(&self, _: Plugin<'_>, _: &str) -> Result<(), SpawnErrorKind> {
        match *self {}
    }

    pub(crate) fn has_root(&self) -> bool {
        match *self {}
    }

    pub(crate) fn granted(&self) -> Option<slice::Iter<'_, PathBuf>> {
        match *self {}
    }

    pub(crate) fn likely_limit(&self, _: WaitStatus, _: &[String]) -> Option<String> {
        match *self {}
    }
}

/// There is no sandbox that a program could be out of.
pub(crate) fn is_of_programs(_: &Path) -> bool {
    true
}

/// No namespaces are asked for.
pub(crate) fn refusal(_: &ForkExecError) -> Option<String> {
    None
}
