//! No typed services: the feature `service` is off.

use pipeplug_net::{HandlerError, Reply, Request};

#[derive(Debug, Default)]
pub(crate) struct Services(());

impl Services {
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn handle(&self, _: &mut Request) -> Option<Result<Reply, HandlerError>> {
        None
    }

    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn metadata(&self) -> Option<(&'static str, String)> {
        None
    }
}
