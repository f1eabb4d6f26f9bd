//! Command line of the engine's client.

use std::ffi::{OsStr, OsString};
use std::path;

use super::{Access, Container, Engine, Init, Mount, Privileges, Pull, client};
use crate::process::{EnvPlan, Launch, SpawnErrorKind};

/// Prefixes of variables that a client, its runtime or its loader reads for itself,
const OF_CLIENTS: [&str; 14] = [
    "DOCKER_",
    "BUILDKIT_",
    "CONTAINERS_",
    "CONTAINER_HOST",
    "CONTAINER_SSHKEY",
    "PODMAN_",
    "STORAGE_",
    "REGISTRY_AUTH_FILE",
    "XDG_",
    "LD_",
    "SSL_CERT_",
    "SSH_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
];
/// and others of these.
const OF_CLIENTS_BY_NAME: [&str; 17] = [
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOTRACEBACK",
    "ALL_PROXY",
    "NO_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "NOTIFY_SOCKET",
    "DBUS_SESSION_BUS_ADDRESS",
];

impl Container {
    /// All arguments; the plugin's variables are left in the environment of the client where that
    /// can be.
    pub(super) fn arguments(
        &self,
        name: &str,
        launch: &Launch,
        client: &mut EnvPlan,
    ) -> Result<Vec<OsString>, SpawnErrorKind> {
        let mut args: Vec<OsString> =
            ["run", "--interactive", "--rm", "--name", name].map(Into::into).into();
        args.extend(self.confinement().into_iter().map(Into::into));
        for mount in &self.mounts {
            args.push("--mount".into());
            args.push(mount.option()?);
        }
        for (variable, value) in launch.env.added() {
            args.push("--env".into());
            args.push(passed_on(&variable, &value, client));
        }
        if let Some(dir) = &launch.cwd {
            args.extend(["--workdir".into(), dir.clone().into_os_string()]);
        }
        let mut behind = client::command_line(launch);
        let entry_point = match &self.entry_point {
            Some(path) => Some(path.clone().into_os_string()),
            None if launch.is_preinstalled => None,
            None => Some(behind.remove(0)),
        };
        args.extend(entry_point.into_iter().flat_map(|path| ["--entrypoint".into(), path]));
        args.extend(self.engine_args.iter().map(Into::into));
        args.extend(["--".into(), OsString::from(&self.image)]);
        args.append(&mut behind);
        Ok(args)
    }

    /// Options that confine the container.
    fn confinement(&self) -> Vec<String> {
        let mut options = vec![
            // What goes over the pipes would be written to a file otherwise, all of it.
            "--log-driver=none".to_owned(),
            "--cap-drop=ALL".to_owned(),
            format!("--network={}", self.network),
            format!("--user={}", self.user),
        ];
        let mut option = |option: &str| options.push(option.to_owned());
        match self.pull {
            Pull::Never => option("--pull=never"),
            Pull::Missing => option("--pull=missing"),
        }
        if self.engine == Engine::Podman {
            // The host's variables for proxies, which may hold a password.
            option("--http-proxy=false");
        }
        if self.init == Init::OfEngine {
            option("--init");
        }
        if self.root == Access::ReadOnly {
            option("--read-only");
        }
        if self.privileges == Privileges::Final {
            option("--security-opt=no-new-privileges");
        }
        options
            .extend(self.capabilities.iter().map(|capability| format!("--cap-add={capability}")));
        if let Some(bytes) = self.memory.value {
            // Memory and swap together.
            options.extend([format!("--memory={bytes}b"), format!("--memory-swap={bytes}b")]);
        }
        options.extend(self.cpus.value.map(|cpus| format!("--cpus={cpus}")));
        // The engines' own defaults differ.
        options.push(match self.pids.value {
            Some(pids) => format!("--pids-limit={pids}"),
            None => "--pids-limit=-1".to_owned(),
        });
        options
    }
}

impl Mount {
    /// The value of `--mount`, which is a line of comma-separated values; `--volume` would make a
    /// source that is not there.
    fn option(&self) -> Result<OsString, SpawnErrorKind> {
        let source = path::absolute(&self.source).map_err(|error| SpawnErrorKind::Os {
            attempt: "finding the working directory, for a mount",
            error,
        })?;
        let mut option = OsString::from("type=bind,");
        option.push(quoted("source=", source.as_os_str()));
        option.push(",");
        option.push(quoted("target=", self.target.as_os_str()));
        if self.access == Access::ReadOnly {
            option.push(",readonly");
        }
        Ok(option)
    }
}

/// A field of comma-separated values (RFC 4180).
fn quoted(key: &str, value: &OsStr) -> OsString {
    let mut field = OsString::from(key);
    field.push(value);
    // A path that is no UTF-8 has no quotation mark that could be doubled; the engine refuses it
    // anyway.
    match field.to_str() {
        Some(text) if text.contains([',', '"', '\n']) => {
            format!("\"{}\"", text.replace('"', "\"\"")).into()
        }
        _ => field,
    }
}

/// The value of `--env`: the name alone where the client can have the value in its own environment,
/// which others on this machine cannot read, as they can its arguments.
fn passed_on(name: &OsStr, value: &OsStr, client: &mut EnvPlan) -> OsString {
    if std::env::var_os(name).as_deref() == Some(value) {
        return name.to_owned();
    }
    let is_of_client = OF_CLIENTS_BY_NAME.iter().any(|known| name == *known)
        || OF_CLIENTS.iter().any(|begin| name.as_encoded_bytes().starts_with(begin.as_bytes()));
    let mut option = name.to_owned();
    if is_of_client {
        option.push("=");
        option.push(value);
    } else {
        client.set(name, value);
    }
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(container: &Container, launch: &Launch, client: &mut EnvPlan) -> String {
        let args = container.arguments("pipeplug-1", launch, client).unwrap();
        args.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn by_default_nothing_is_allowed() {
        let mut launch = Launch::new("image");
        launch.is_preinstalled = true;
        let expected = "run --interactive --rm --name pipeplug-1 --log-driver=none --cap-drop=ALL \
                        --network=none --user=65534:65534 --pull=never --init --read-only \
                        --security-opt=no-new-privileges --memory=536870912b \
                        --memory-swap=536870912b --cpus=1 --pids-limit=256 -- image";
        assert_eq!(line(&Container::docker("image"), &launch, &mut EnvPlan::inherit()), expected);
    }

    #[test]
    fn each_wall_has_its_setting() {
        let container = Container::podman("image")
            .pull_missing()
            .network("host")
            .writable_root()
            .capability("CHOWN")
            .new_privileges()
            .user("0")
            .memory(None)
            .cpus(0.5)
            .pids(None)
            .without_init()
            .mount("/a", "/b")
            .mount_writable("/c,\"d\"", "/e")
            .entry_point("/bin/sh")
            .engine_arg("--tmpfs=/tmp");
        let mut launch = Launch::new("/plugin");
        launch.args = vec!["7".into(), "8".into()];
        launch.cwd = Some("/srv".into());
        let expected = "run --interactive --rm --name pipeplug-1 --log-driver=none --cap-drop=ALL \
                        --network=host --user=0 --pull=missing --http-proxy=false --cap-add=CHOWN \
                        --cpus=0.5 --pids-limit=-1 --mount type=bind,source=/a,target=/b,readonly \
                        --mount type=bind,\"source=/c,\"\"d\"\"\",target=/e --workdir /srv \
                        --entrypoint /bin/sh --tmpfs=/tmp -- image /plugin 0 1 7 8";
        assert_eq!(line(&container, &launch, &mut EnvPlan::inherit()), expected);
    }

    #[test]
    fn a_secret_is_no_argument() {
        let mut launch = Launch::new("/plugin");
        launch
            .env
            .set("PIPEPLUG_TEST_TOKEN", "secret")
            .set("DOCKER_HOST", "its-own")
            .remove("HOME");
        let mut client = EnvPlan::inherit();
        let line = line(&Container::docker("image"), &launch, &mut client);
        assert!(
            line.contains(
                "--env DOCKER_HOST=its-own --env PIPEPLUG_TEST_TOKEN --entrypoint /plugin"
            ),
            "{line}"
        );
        assert_eq!(client.added(), [("PIPEPLUG_TEST_TOKEN".into(), "secret".into())].into());
    }

    #[test]
    fn what_the_host_lets_through_is_in_the_clients_environment_already() {
        let mut launch = Launch::new("/plugin");
        launch.env.pass("PATH").pass("PIPEPLUG_TEST_ABSENT");
        let mut client = EnvPlan::inherit();
        let line = line(&Container::docker("image"), &launch, &mut client);
        assert!(line.contains("--env PATH --entrypoint") && !line.contains("ABSENT"), "{line}");
        assert!(client.added().is_empty());
    }
}
