//! Plugins in Kubernetes, by the user's own kubectl.

mod diagnose;
mod pod;
mod process;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use super::cleanup::Removal;
use super::client::{self, ClientCommand};
use super::{Diagnosis, Launcher, Started};
use crate::process::{Launch, SpawnError, SpawnErrorKind, WaitStatus};
use process::Pod;

/// Runs a plugin in a pod of its own, by `kubectl run`, with the user's own configuration and
/// login; its standard input and output are the pipes.
///
/// ```no_run
/// use std::time::Duration;
///
/// use pipeplug_host::Plugin;
/// use pipeplug_host::launcher::Kubectl;
///
/// let kubectl = Kubectl::new("registry.example/spell:2").namespace("plugins").limit("memory", "64Mi");
/// // The entry point of the image; `Plugin::builder("/bin/plugin")` starts another program in it.
/// let plugin = Plugin::preinstalled("spell").launcher(kubectl).handshake_timeout(Duration::from_secs(90)).start()?;
/// # Ok::<(), pipeplug_host::StartError>(())
/// ```
///
/// What [`PluginBuilder::env`](crate::PluginBuilder::env) sets goes with it, nothing of the host's
/// environment does; [`PluginBuilder::current_dir`](crate::PluginBuilder::current_dir) is a
/// directory in the pod. Where it runs and what it may do is the cluster's choice, but for the
/// token of its service account, which it does not get unless [`overrides`](Self::overrides) say
/// so.
///
/// A pod takes seconds to start, and longer where its image is yet to be pulled: the start needs a
/// longer [`handshake_timeout`](crate::PluginBuilder::handshake_timeout) than the default one. The
/// pod is deleted after the plugin has ended or was stopped, also where the start failed, and where
/// kubectl or the host are killed (not with [`OnHostExit::EndOfFile`](crate::OnHostExit)). Its
/// process here, with the process id, is kubectl; SIGTERM to that has the pod deleted. All pods
/// have the label `app.kubernetes.io/managed-by=pipeplug`.
#[derive(Debug, Clone)]
pub struct Kubectl {
    image: String,
    client: ClientCommand,
    namespace: Option<String>,
    context: Option<String>,
    pull_policy: Option<PullPolicy>,
    requests: BTreeMap<String, String>,
    limits: BTreeMap<String, String>,
    running_timeout: Duration,
    overrides: Option<String>,
}

/// Pull policy for the image of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Pull at each start. An image that has not changed is not transferred again.
    Always,
    /// Pull a missing image.
    IfNotPresent,
    /// Never: it has to be there.
    Never,
}

impl Kubectl {
    /// The image to run.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            client: ClientCommand::new("kubectl"),
            namespace: None,
            context: None,
            pull_policy: None,
            requests: BTreeMap::new(),
            limits: BTreeMap::new(),
            running_timeout: Duration::from_secs(60),
            overrides: None,
        }
    }

    /// The program to run, which is looked for in `PATH` unless it has a slash. Default: `kubectl`.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.client.program = program.into();
        self
    }

    /// Adds an option that all commands of kubectl take, such as `--kubeconfig=…` or `--as=…`,
    /// before the command.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.client.options.push(arg.into());
        self
    }

    /// The pod's namespace. Default: that of the context.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The context of kubectl's configuration, which names the cluster. Default: the current one.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Sets the pull policy. Default: the cluster's choice, which is to pull `:latest` always and
    /// other tags if they are missing.
    #[must_use]
    pub fn pull_policy(mut self, policy: PullPolicy) -> Self {
        self.pull_policy = Some(policy);
        self
    }

    /// Requests an amount of a resource: `"cpu"` and `"500m"`, `"memory"` and `"64Mi"`. Default:
    /// the namespace's.
    #[must_use]
    pub fn request(mut self, resource: impl Into<String>, quantity: impl Into<String>) -> Self {
        self.requests.insert(resource.into(), quantity.into());
        self
    }

    /// Limits a resource. Default: the namespace's.
    #[must_use]
    pub fn limit(mut self, resource: impl Into<String>, quantity: impl Into<String>) -> Self {
        self.limits.insert(resource.into(), quantity.into());
        self
    }

    /// Time for the pod to run, in whole seconds, rounded up, at least one. Default: 60 seconds.
    #[must_use]
    pub fn running_timeout(mut self, timeout: Duration) -> Self {
        self.running_timeout = timeout;
        self
    }

    /// Anything else of the pod, as JSON of the `v1` API:
    /// `{"spec":{"nodeSelector":{"disk":"ssd"}}}`. Its own container is not to be changed by it;
    /// further ones stand behind that.
    #[must_use]
    pub fn overrides(mut self, json: impl Into<String>) -> Self {
        self.overrides = Some(json.into());
        self
    }

    /// The command line, with all options before the command.
    fn command(&self, command: impl IntoIterator<Item = String>) -> Vec<OsString> {
        let context = self.context.iter().map(|context| format!("--context={context}"));
        let namespace = self.namespace.iter().map(|namespace| format!("--namespace={namespace}"));
        let args = context.chain(namespace).chain(command);
        self.client.command(args.map(OsString::from))
    }

    fn arguments(&self, name: &str, launch: &Launch) -> Result<Vec<OsString>, SpawnErrorKind> {
        let seconds = client::whole_seconds(self.running_timeout).max(1);
        Ok(self.command([
            "run".into(),
            name.into(),
            format!("--image={}", self.image),
            "--stdin".into(),
            "--rm".into(),
            "--restart=Never".into(),
            // It would write to the pipe.
            "--quiet".into(),
            "--labels=app.kubernetes.io/managed-by=pipeplug".into(),
            format!("--pod-running-timeout={seconds}s"),
            // All of the container, since a list is replaced as a whole:
            // `--override-type=strategic`, which would not, is not known to kubectl before 1.24.
            format!("--overrides={}", pod::overrides(self, name, launch)?),
        ]))
    }

    fn run(&self, launch: &Launch) -> Result<Started, SpawnErrorKind> {
        let name = client::unused_name();
        let client = client::launch(launch, &self.client.program, self.arguments(&name, launch)?)?;
        let removal = self.removal(&name, client.program.clone());
        let (spawned, cleanup) = client::start_with_cleanup(launch, &client, self, removal)?;
        tracing::debug!(pod = %name, image = ?self.image, "started kubectl");
        Ok(Pod::started(spawned, cleanup))
    }

    fn removal(&self, name: &str, program: std::path::PathBuf) -> Removal {
        let args = self.command([
            "delete".into(),
            "pod".into(),
            name.into(),
            "--now".into(),
            "--wait=false".into(),
        ]);
        Removal { what: format!("the pod {name}"), script: "\"$@\"", program, args }
    }
}

impl Launcher for Kubectl {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        self.run(launch).map_err(|kind| kind.at(&launch.program))
    }

    fn describe(&self) -> Option<String> {
        Some(format!("in a pod of {:?} (kubectl)", self.image))
    }

    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        diagnose::diagnose(self, status, stderr)
    }
}
