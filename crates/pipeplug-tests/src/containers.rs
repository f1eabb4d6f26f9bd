//! A real engine for containers, and an image of the plugin `captive`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pipeplug_host::launcher::{Container, Engine};
use pipeplug_host::{Plugin, PluginBuilder};

use crate::{eventually, missing, tool};

/// An engine that works, and the containers of one test.
#[derive(Debug)]
pub struct Containers {
    /// The engine.
    pub engine: Engine,
    label: String,
}

impl Containers {
    /// The image of the plugin, which is its entry point, `/captive`.
    pub const IMAGE: &str = "pipeplug-captive:test";

    /// `None` where the engine is missing or does not answer, which is told.
    ///
    /// # Panics
    /// Where that is so and `CI=true`.
    #[must_use]
    pub fn of(engine: Engine, captive: &str) -> Option<Self> {
        let package = match engine {
            Engine::Podman => "podman, catatonit, runc",
            _ => "docker.io",
        };
        tool(engine.program(), package)?;
        let label = format!("pipeplug.test={}-{:x}", std::process::id(), fastrand::u64(..));
        let this = Self { engine, label };
        // `info` asks a daemon too.
        if !this.command(&["info"]).output().expect("it is there").status.success() {
            missing(&format!("{engine} does not work here: `{} info` says why", engine.program()));
            return None;
        }
        this.import(Path::new(captive));
        Some(this)
    }

    /// A container of the plugin's image, with limits on descriptors that any engine may set.
    #[must_use]
    pub fn container(&self) -> Container {
        self.container_of(Self::IMAGE)
    }

    /// A container of another image.
    #[must_use]
    pub fn container_of(&self, image: &str) -> Container {
        let container =
            Container::new(self.engine, image).engine_arg(format!("--label={}", self.label));
        let container = container.engine_arg("--ulimit=nofile=1000:1000");
        match self.engine {
            Engine::Podman => container.engine_arg("--ulimit=nproc=1000:1000"),
            _ => container,
        }
    }

    /// The plugin in that container, with a handshake timeout for busy machines.
    pub fn builder(&self, container: Container) -> PluginBuilder {
        Plugin::preinstalled("captive").launcher(container).handshake_timeout(crate::LONG)
    }

    /// The containers of this test that there are, running or not.
    ///
    /// # Panics
    /// If the engine does not tell.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let filter = format!("--filter=label={}", self.label);
        self.output(&["ps", "--all", "--quiet", &filter]).lines().map(str::to_owned).collect()
    }

    /// Description of the only container, by the engine.
    ///
    /// # Panics
    /// If there is none, or more.
    #[must_use]
    pub fn inspect(&self, format: &str) -> String {
        let all = self.all();
        let [id] = &all[..] else { panic!("one container is expected: {all:?}") };
        self.output(&["container", "inspect", "--format", format, id]).trim().to_owned()
    }

    /// Waits until the only one is in that state: `running`, `paused`.
    pub fn wait_state(&self, state: &str) {
        eventually(state, || {
            let all = self.all();
            // Docker lists one for a moment that it is yet to make.
            all.len() == 1 && {
                let args = ["container", "inspect", "--format", "{{.State.Status}}", &all[0]];
                let output = self.command(&args).output().expect("it is there");
                String::from_utf8_lossy(&output.stdout).trim() == state
            }
        });
    }

    /// Waits until there is none any more.
    pub fn assert_gone(&self) {
        eventually("no container is left", || self.all().is_empty());
    }

    /// Runs the client of the engine, and returns its output.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn output(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("it is there");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// Makes an image of files, of which the first one is the entry point.
    ///
    /// # Panics
    /// If the engine does not.
    pub fn make_image(&self, image: &str, comment: &str, files: &[(PathBuf, &str)]) {
        self.import_files(image, comment, &format!("ENTRYPOINT [\"/{}\"]", files[0].1), files);
    }

    /// Makes an image of files, with that line of a Dockerfile, and of what the first one is linked
    /// to.
    ///
    /// # Panics
    /// If the engine does not.
    pub fn make_image_with(&self, image: &str, change: &str, files: &[(PathBuf, &str)]) {
        let libraries = libraries(&files[0].0);
        let mut all = files.to_vec();
        all.extend(libraries.iter().map(|path| (path.clone(), name_in_image(path))));
        self.import_files(image, "", change, &all);
    }

    fn import_files(&self, image: &str, comment: &str, change: &str, files: &[(PathBuf, &str)]) {
        let mut import = self
            .command(&["import", "--message", comment, "--change", change, "-", image])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it is there");
        let mut archive = tar::Builder::new(import.stdin.take().expect("it is piped"));
        // Engines know no sparse files.
        archive.sparse(false);
        for (path, name) in files {
            archive.append_path_with_name(path, name).expect("it is there");
        }
        archive.into_inner().and_then(|mut pipe| pipe.flush()).expect("it is read");
        let output = import.wait_with_output().expect("it is our child");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The engine's client with these arguments.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.engine.program());
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Makes the image, unless there is one of this very file; one left of an earlier build goes.
    fn import(&self, captive: &Path) {
        let file = fs::metadata(captive).expect("it was built");
        let built = file.modified().expect("the file system keeps times");
        let comment = format!("{built:?} {}", file.len());
        let lock = File::create(std::env::temp_dir().join(format!(
            "pipeplug-image-{}-{}",
            self.engine,
            nix::unistd::geteuid()
        )))
        .expect("there is room for temporary files");
        // Released with the file.
        lock.lock().expect("the file system has locks");
        let inspect =
            self.command(&["image", "inspect", "--format", "{{.Comment}}", Self::IMAGE]).output();
        let found = inspect.expect("it is there");
        if String::from_utf8_lossy(&found.stdout).trim() == comment {
            return;
        }
        if found.status.success() {
            // A container of another run may have it.
            let _ = self.command(&["rmi", "--force", Self::IMAGE]).output();
        }
        let mut files = vec![(captive.to_owned(), "captive")];
        let libraries = libraries(captive);
        files.extend(libraries.iter().map(|path| (path.clone(), name_in_image(path))));
        self.make_image(Self::IMAGE, &comment, &files);
    }
}

fn name_in_image(path: &Path) -> &str {
    path.to_str().expect("UTF-8").trim_start_matches('/')
}

/// Libraries that a program is linked to: the words of `ldd` that are paths.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("it comes with the C library");
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
