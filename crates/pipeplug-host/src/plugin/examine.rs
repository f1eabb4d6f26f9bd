//! Examination of a plugin without a start.

use crate::plugin::PluginBuilder;
use crate::process::Examination;

impl PluginBuilder {
    /// Examines the plugin's file, its interpreter and its libraries, without a start. `None` with a
    /// launcher: the file is elsewhere then.
    ///
    /// # Blocking
    /// Reads those files.
    #[must_use]
    pub fn examine(&self) -> Option<Examination> {
        let is_here = self.launcher.describe().is_none() && !self.launch.is_preinstalled;
        is_here.then(|| Examination::of(&self.launch.program, &self.launch.env))
    }
}
