//! No typed services: the feature `service` is off.

use std::convert::Infallible;
#[cfg(feature = "verify")]
use std::path::Path;

use pipeplug_net::{HandlerError, Reply, Request};

use crate::plugin::metadata::Metadata;
#[cfg(feature = "verify")]
use crate::process::Launch;

#[derive(Debug, Clone, Default)]
pub(crate) struct Services(());

pub(crate) type Missing = Infallible;

/// Does not check the interface: the sum of the file was.
#[cfg(feature = "verify")]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(crate) fn check_pinned<C>(_: &C, _: &Metadata, _: &Launch, _: &Path) -> Result<(), String> {
    Ok(())
}

#[expect(clippy::unused_self, reason = "as with the feature")]
impl Services {
    pub(crate) fn handle(&self, _: &mut Request) -> Option<Result<Reply, HandlerError>> {
        None
    }

    pub(crate) fn metadata(&self) -> Option<(&'static str, String)> {
        None
    }

    #[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(crate) fn check<C>(&self, _: &C, _: &str, _: &Metadata) -> Result<(), Missing> {
        Ok(())
    }
}
