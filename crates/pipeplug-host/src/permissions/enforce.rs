//! From what is allowed to what is enforced: sandbox, environment, allow list.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{self, Path, PathBuf};

use super::Permissions;
use super::path::{Base, PermittedPath};
#[cfg(feature = "verify")]
use crate::integrity::LockFile;
use crate::plugin::{PluginBuilder, StartError, StartErrorKind};
use crate::process::Launch;
use crate::sandbox::{DeclaredFile, Sandbox, is_of_programs};

/// Variable that tells a plugin where its own folder is, if it may use files of it.
const OWN_FOLDER: &str = "PIPEPLUG_PLUGIN_DIR";

/// Origin of the permissions that a plugin is allowed.
#[derive(Debug, Clone)]
pub(crate) enum Allowed {
    /// These.
    Given(Permissions),
    /// Those of the plugin in this lock file, at the time of the start.
    #[cfg(feature = "verify")]
    In(PathBuf),
    /// Those that a lock file had.
    #[cfg(feature = "verify")]
    Read { permissions: Permissions, lock_file: PathBuf },
}

impl Allowed {
    /// The permissions, once they are known.
    pub(crate) fn known(&self) -> Option<&Permissions> {
        match self {
            Self::Given(permissions) => Some(permissions),
            #[cfg(feature = "verify")]
            Self::Read { permissions, .. } => Some(permissions),
            #[cfg(feature = "verify")]
            Self::In(_) => None,
        }
    }

    /// The lock file that they are from.
    pub(crate) fn lock_file(&self) -> Option<&Path> {
        match self {
            Self::Given(_) => None,
            #[cfg(feature = "verify")]
            Self::In(path) | Self::Read { lock_file: path, .. } => Some(path),
        }
    }
}

impl PluginBuilder {
    /// Confines the plugin to exactly these permissions: a strict sandbox with their files and TCP
    /// ports, the variables that every plugin gets and theirs, and their commands. Of
    /// [`sandbox`](Self::sandbox), which has to be strict, the limits and what it grants hold as well;
    /// an allow list of [`allow`](Self::allow) takes commands away; [`env`](Self::env) and
    /// [`env_pass`](Self::env_pass) hold, [`env_inherit`](Self::env_inherit) does not.
    ///
    /// A plugin that declares more than that in its metadata does not start
    /// ([`StartErrorKind::MorePermissions`](crate::StartErrorKind::MorePermissions)).
    ///
    /// ```no_run
    /// use pipeplug_host::{Permissions, Plugin};
    ///
    /// let allowed: Permissions = r#"{"read":["{plugin}/words"],"commands":["log"]}"#.parse()?;
    /// let plugin = Plugin::builder("./spell").permissions(allowed).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn permissions(mut self, allowed: Permissions) -> Self {
        self.permissions = Some(Allowed::Given(allowed));
        self
    }

    /// Confines the plugin to the permissions that a [`LockFile`](crate::LockFile) has for it, as
    /// [`permissions`](Self::permissions) does. The file is read at each start. A plugin that it
    /// names no permissions for does not start
    /// ([`StartErrorKind::NotPermitted`](crate::StartErrorKind::NotPermitted)).
    #[cfg(feature = "verify")]
    pub fn permissions_from(mut self, lock_file: impl Into<PathBuf>) -> Self {
        self.permissions = Some(Allowed::In(lock_file.into()));
        self
    }

    /// The same builder with the permissions that are allowed now, if it has any, as its sandbox,
    /// environment and allow list.
    ///
    /// # Errors
    /// Nothing is recorded for the plugin, or it cannot be enforced.
    pub(crate) fn permitted(&self) -> Result<Cow<'_, Self>, StartError> {
        match &self.permissions {
            None => Ok(Cow::Borrowed(self)),
            // The demand for a sandbox has the start fail.
            Some(_) if !self.launcher.enforces_demands() => {
                let sandbox = self.launch.sandbox.clone().unwrap_or_else(Sandbox::strict);
                Ok(Cow::Owned(self.clone().sandbox(sandbox)))
            }
            Some(allowed) => self.with_allowed(allowed).map(Cow::Owned).map_err(|problem| {
                let kind = StartErrorKind::NotPermitted { problem };
                StartError::new(&self.launch.program, self.launcher.describe(), kind)
            }),
        }
    }

    fn with_allowed(&self, allowed: &Allowed) -> Result<Self, String> {
        let allowed = read(allowed, &self.launch.program)?;
        let permissions = allowed.known().cloned().unwrap_or_default();
        let mut builder = self.clone();
        let sandbox = self.launch.sandbox.clone().unwrap_or_else(Sandbox::strict);
        if !sandbox.is_strict_in_full() {
            return Err(
                "its permissions are enforced by a strict sandbox alone, without best effort"
                    .into(),
            );
        }
        let places = Places::of(&self.launch, &permissions)?;
        builder.launch.sandbox = Some(places.fill(sandbox, &permissions, allowed.lock_file())?);
        let env = &mut builder.launch.env;
        *env = env.clone().without_all();
        for name in &permissions.environment {
            env.pass(name);
        }
        if permissions.needs_own_folder() {
            env.set(OWN_FOLDER, &places.plugin.named);
        }
        if permissions.paths().any(|path| path.base() == Base::Temp) {
            env.set("TMPDIR", env::temp_dir());
        }
        // An allow list of the host's own holds as well.
        let commands = permissions
            .commands
            .iter()
            .filter(|it| self.allowed.as_ref().is_none_or(|allowed| allowed.contains(*it)));
        builder.allowed = Some(commands.cloned().collect::<BTreeSet<_>>());
        builder.permissions = Some(allowed);
        Ok(builder)
    }
}

#[cfg(feature = "verify")]
fn read(allowed: &Allowed, program: &Path) -> Result<Allowed, String> {
    let Allowed::In(path) = allowed else { return Ok(allowed.clone()) };
    let lock = LockFile::open(path).map_err(|error| match error.kind() {
        crate::LockFileErrorKind::Missing => {
            format!("nothing is allowed to it: there is no lock file {path:?}")
        }
        _ => error.to_string(),
    })?;
    let permissions = lock.permissions_of(program);
    let permissions = permissions.map_err(|error| format!("its path cannot be read: {error}"))?;
    let permissions = permissions.ok_or_else(|| {
        format!("nothing is allowed to it: the lock file {path:?} does not say what")
    })?;
    Ok(Allowed::Read { permissions: permissions.clone(), lock_file: path.clone() })
}

#[cfg(not(feature = "verify"))]
fn read(allowed: &Allowed, _program: &Path) -> Result<Allowed, String> {
    Ok(allowed.clone())
}

/// A folder that paths are below.
struct Place {
    /// Path that the plugin knows it by.
    named: PathBuf,
    /// The same without symbolic links.
    real: PathBuf,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { named: path::absolute(path)?, real: fs::canonicalize(path)? })
    }
}

/// Folders of a start.
struct Places {
    /// File of the plugin, without symbolic links.
    program: PathBuf,
    plugin: Place,
    home: Option<Place>,
    temp: Option<Place>,
    cwd: Option<Place>,
}

impl Places {
    fn of(launch: &Launch, permissions: &Permissions) -> Result<Self, String> {
        let program = fs::canonicalize(&launch.program)
            .map_err(|error| format!("its path cannot be read: {error}"))?;
        let folder = program.parent().unwrap_or(Path::new("/")).to_owned();
        let place = |base: Base, path: Option<PathBuf>| -> Result<Option<Place>, String> {
            if permissions.paths().all(|path| path.base() != base) {
                return Ok(None);
            }
            let placeholder = base.placeholder();
            let path = path.filter(|path| path.is_absolute());
            let path = path.ok_or_else(|| no_place(base, |name| env::var_os(name)))?;
            let place = Place::of(&path)
                .map_err(|error| format!("{path:?} cannot be used for {placeholder}: {error}"))?;
            if place.real == Path::new("/") {
                return Err(format!("{placeholder} would be all files of this machine ({path:?})"));
            }
            Ok(Some(place))
        };
        let cwd = match &launch.cwd {
            Some(dir) => path::absolute(dir).ok(),
            None => env::current_dir().ok(),
        };
        Ok(Self {
            home: place(Base::Home, env::var_os("HOME").map(PathBuf::from))?,
            temp: place(Base::Temp, Some(env::temp_dir()))?,
            cwd: place(Base::Cwd, cwd)?,
            plugin: Place { named: folder.clone(), real: folder },
            program,
        })
    }

    /// Adds the permissions to a sandbox.
    fn fill(
        &self,
        mut sandbox: Sandbox,
        permissions: &Permissions,
        lock_file: Option<&Path>,
    ) -> Result<Sandbox, String> {
        let files = sandbox.files.get_or_insert_default();
        for (paths, to) in
            [(&permissions.read, &mut files.look_at), (&permissions.execute, &mut files.read)]
        {
            for path in paths {
                let file = self.file(path)?;
                // Nothing can be read or run there. It may be an option of the plugin's.
                if !fs::symlink_metadata(&file.path).is_err_and(|error| is_missing(&error)) {
                    to.push(file.path.clone());
                    files.declared.push(file);
                }
            }
        }
        for path in &permissions.write {
            let file = self.file(path)?;
            files.write.push(file.path.clone());
            files.declared.push(file);
        }
        // A plugin that writes to these gives itself whatever it wants, from the next start on.
        if let Some(path) = lock_file.filter(|_| !files.write.is_empty()) {
            has_one_name(path)?;
        }
        files.not_writable.push(self.program.clone());
        files.not_writable.extend(lock_file.into_iter().flat_map(files_on_the_way));
        sandbox = permissions.connect.iter().copied().fold(sandbox, Sandbox::connect);
        Ok(permissions.bind.iter().copied().fold(sandbox, Sandbox::bind))
    }

    fn file(&self, path: &PermittedPath) -> Result<DeclaredFile, String> {
        let place = match path.base() {
            Base::Root => {
                let path = Path::new("/").join(path.below());
                let is_of_system = is_of_programs(&path) || path.starts_with("/etc");
                let real = (!is_of_system).then(|| path.clone());
                return Ok(DeclaredFile { path, real });
            }
            Base::Plugin => Some(&self.plugin),
            Base::Home => self.home.as_ref(),
            Base::Temp => self.temp.as_ref(),
            Base::Cwd => self.cwd.as_ref(),
        };
        let place = place.ok_or_else(|| format!("there is no {}", path.base().placeholder()))?;
        let below = |folder: &Path| match path.below() {
            "" => folder.to_owned(),
            below => folder.join(below),
        };
        Ok(DeclaredFile { path: below(&place.named), real: Some(below(&place.real)) })
    }
}

/// The reason that a placeholder stands for no folder, and what to do.
fn no_place(base: Base, variable: impl Fn(&str) -> Option<OsString>) -> String {
    let problem = match base {
        Base::Home => not_absolute("HOME", variable("HOME"), "the home folder of the user"),
        Base::Temp => not_absolute("TMPDIR", variable("TMPDIR"), "a folder for temporary files"),
        Base::Cwd => "the working folder of the host is gone; start it in another one".to_owned(),
        // These are in the path of the plugin's file.
        Base::Root | Base::Plugin => "its own folder has no path".to_owned(),
    };
    format!("there is no {} for its permissions: {problem}", base.placeholder())
}

fn not_absolute(name: &str, value: Option<OsString>, meaning: &str) -> String {
    match value {
        Some(value) => {
            format!("{name} is {value:?}, which is no absolute path; set it to {meaning}")
        }
        None => format!("{name} is not set; set it to {meaning}"),
    }
}

/// Refuses a lock file with several hard links: the other one may be in a folder that the plugin may write to, where no
/// path tells of it.
fn has_one_name(lock_file: &Path) -> Result<(), String> {
    let links = fs::metadata(lock_file).map_or(1, |metadata| metadata.nlink());
    if links > 1 {
        return Err(format!(
            "its lock file {lock_file:?} has {links} hard links, and by another of them the plugin could change what it \
             is allowed; make it a file of its own: `cp -p` it to a new name, and `mv` that over it"
        ));
    }
    Ok(())
}

/// The file of a path, and each symbolic link that leads to it, without a link in their own paths.
fn files_on_the_way(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::canonicalize(path).into_iter().collect();
    let Ok(mut path) = std::path::absolute(path) else { return found };
    // As many links as the system follows.
    for _ in 0..40 {
        let mut ways: Vec<_> = path.ancestors().map(Path::to_owned).collect();
        ways.reverse();
        let link = ways.into_iter().find_map(|way| Some((fs::read_link(&way).ok()?, way)));
        let Some((target, link)) = link else { break };
        let Some(folder) = link.parent().and_then(|folder| fs::canonicalize(folder).ok()) else {
            break;
        };
        found.push(folder.join(link.file_name().unwrap_or_default()));
        let rest = path.strip_prefix(&link).unwrap_or(Path::new("")).to_owned();
        let target = folder.join(target);
        path = if rest.as_os_str().is_empty() { target } else { target.join(rest) };
    }
    found
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_without_a_folder_says_why() {
        for (base, value, says) in [
            (
                Base::Home,
                None,
                "there is no {home} for its permissions: HOME is not set; set it to",
            ),
            (Base::Home, Some("me"), "HOME is \"me\", which is no absolute path; set it to"),
            (Base::Home, Some(""), "HOME is \"\", which is no absolute path"),
            (Base::Temp, Some("tmp"), "TMPDIR is \"tmp\""),
            (Base::Cwd, None, "there is no {cwd} for its permissions: the working folder"),
        ] {
            let said = no_place(base, |_| value.map(OsString::from));
            assert!(said.contains(says), "{said}");
        }
    }
}
