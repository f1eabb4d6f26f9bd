//! Stand-in for the enforcement of permissions in a build without the feature `sandbox`.

use std::borrow::Cow;

use crate::plugin::{PluginBuilder, StartError};

impl PluginBuilder {
    /// Without a sandbox no builder has permissions.
    #[expect(clippy::unnecessary_wraps, reason = "with a sandbox it may fail")]
    pub(crate) fn permitted(&self) -> Result<Cow<'_, Self>, StartError> {
        Ok(Cow::Borrowed(self))
    }
}
