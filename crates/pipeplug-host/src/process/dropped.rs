//! Variables that plugins often need and do not get unasked.

use std::env;
use std::ffi::OsStr;

use super::EnvPlan;

/// The variables, by what reads them: dynamic loaders, runtimes, and at last where programs are
/// that choose between versions of runtimes, which many users have set for good.
const NAMES: [&str; 51] = [
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOCALE_ARCHIVE",
    "NIX_LD",
    "NIX_LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONUSERBASE",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYENV_VERSION",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODENV_VERSION",
    "CLASSPATH",
    "JAVA_HOME",
    "JAVA_OPTS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "BUNDLE_GEMFILE",
    "GEM_HOME",
    "GEM_PATH",
    "RBENV_VERSION",
    "RUBYLIB",
    "RUBYOPT",
    "PERL5LIB",
    "PERL5OPT",
    "PERL_LOCAL_LIB_ROOT",
    "DOTNET_ROOT",
    "ERL_LIBS",
    "JULIA_DEPOT_PATH",
    "JULIA_LOAD_PATH",
    "LUA_CPATH",
    "LUA_PATH",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "R_HOME",
    "R_LIBS",
    "TCLLIBPATH",
    "PYENV_ROOT",
    "NODENV_ROOT",
    "NVM_BIN",
    "NVM_DIR",
    "FNM_DIR",
    "VOLTA_HOME",
    "SDKMAN_DIR",
    "RBENV_ROOT",
    "GOPATH",
    "GOROOT",
    "NODE_EXTRA_CA_CERTS",
];

/// The beginnings of further names.
const PREFIXES: [&str; 3] = ["ASDF_", "DYLD_", "MISE_"];

/// The names of those that are set in the host's environment and that a plugin does not get, the
/// most telling ones first.
pub(crate) fn dropped(plan: &EnvPlan) -> Vec<String> {
    let names = env::vars_os().map(|(name, _)| name);
    let mut dropped: Vec<_> = names.filter_map(|name| dropped_name(plan, &name)).collect();
    dropped.sort_by_key(|name| (NAMES.iter().position(|known| known == name), name.clone()));
    dropped
}

fn dropped_name(plan: &EnvPlan, name: &OsStr) -> Option<String> {
    let text = name.to_str()?;
    let is_often_needed =
        NAMES.contains(&text) || PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    // One that the host has set, or left out, is no oversight.
    let is_decided = plan.passes(name) || plan.names().any(|known| known == name);
    (is_often_needed && !is_decided).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_decided_is_not_named() {
        let name = |plan: &EnvPlan| dropped_name(plan, OsStr::new("PYTHONPATH"));
        let mut plan = EnvPlan::default();
        assert_eq!(name(&plan).as_deref(), Some("PYTHONPATH"));
        assert_eq!(
            dropped_name(&plan, OsStr::new("ASDF_PYTHON_VERSION")).as_deref(),
            Some("ASDF_PYTHON_VERSION")
        );
        assert_eq!(dropped_name(&plan, OsStr::new("AWS_SECRET_ACCESS_KEY")), None);
        assert_eq!(dropped_name(&plan, OsStr::new("LC_ALL")), None);
        assert_eq!(name(&EnvPlan::inherit()), None);
        plan.pass("PYTHONPATH");
        assert_eq!(name(&plan), None);
        assert_eq!(name(EnvPlan::default().remove("PYTHONPATH")), None);
        assert_eq!(name(EnvPlan::default().set("PYTHONPATH", "/x")), None);
    }
}
