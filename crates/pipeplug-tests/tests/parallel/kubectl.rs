//! Plugins in Kubernetes: what kubectl makes of what it is told, and what becomes of the pod. There
//! is no cluster here, only what answers kubectl's questions about one.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use pipeplug_host::launcher::{Kubectl, PullPolicy};
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{Plugin, PluginBuilder, StartErrorKind, StoppedBy, WaitStatus};
use pipeplug_tests::{LONG, command_lines_with, eventually, free_port, send, tool};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::MISBEHAVE;
use crate::on_host_exit::Host;

/// Says that it knows pods, and refuses to make one.
struct Cluster {
    port: u16,
    /// The methods, paths and bodies of requests that are to change something.
    asked: Arc<Mutex<Vec<(String, String, Value)>>>,
}

impl Cluster {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &noted);
            }
        });
        Self { port, asked }
    }

    /// Launcher whose kubectl talks to this server.
    fn kubectl(&self, image: &str) -> Kubectl {
        Kubectl::new(image)
            .arg(format!("--server=http://127.0.0.1:{}", self.port))
            .arg("--kubeconfig=/dev/null")
    }

    /// The pod that was to be made, and where.
    fn pod(&self) -> (String, Value) {
        let asked = self.asked.lock().unwrap();
        let (_, path, body) =
            asked.iter().find(|(method, ..)| method == "POST").expect("one was to be made");
        (path.clone(), body.clone())
    }
}

fn answer(mut stream: TcpStream, noted: &Mutex<Vec<(String, String, Value)>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let mut len = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    let (status, said) = match (method.as_str(), path.as_str()) {
        ("GET", "/api") => ("200 OK", json!({ "kind": "APIVersions", "versions": ["v1"] })),
        ("GET", "/apis") => {
            ("200 OK", json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] }))
        }
        ("GET", "/api/v1") => {
            let pods = json!({
                "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                "verbs": ["create", "delete", "get"],
            });
            (
                "200 OK",
                json!({ "kind": "APIResourceList", "groupVersion": "v1", "resources": [pods] }),
            )
        }
        ("GET", _) => ("404 Not Found", json!({})),
        _ => {
            let body = serde_json::from_slice(&body).unwrap_or_default();
            noted.lock().unwrap().push((method, path, body));
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                "message": "pods is forbidden",
            });
            ("403 Forbidden", status)
        }
    };
    let said = said.to_string();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    // It may have seen enough.
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{said}", said.len());
}

fn full(kubectl: Kubectl) -> Kubectl {
    kubectl
        .namespace("plugins")
        .request("cpu", "500m")
        .limit("cpu", "1")
        .limit("memory", "64Mi")
        .pull_policy(PullPolicy::IfNotPresent)
        .overrides(
            r#"{"metadata":{"annotations":{"a":"b"}},"spec":{"nodeSelector":{"disk":"ssd"}}}"#,
        )
}

fn plugin() -> PluginBuilder {
    Plugin::builder("/bin/plugin")
        .args(["7", "8", "it's $(HOME) $$ $x"])
        .env("A", "$(B) 'c'")
        .env_remove("HOME")
        .current_dir("/srv")
        .handshake_timeout(LONG)
}

/// The whole of it, but for its name.
fn expected(name: &Value) -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "labels": { "app.kubernetes.io/managed-by": "pipeplug" },
            "annotations": { "a": "b" },
        },
        "spec": {
            "automountServiceAccountToken": false,
            "nodeSelector": { "disk": "ssd" },
            "restartPolicy": "Never",
            "dnsPolicy": "ClusterFirst",
            "containers": [{
                "name": name,
                "image": "registry.example/spell:2",
                "imagePullPolicy": "IfNotPresent",
                "stdin": true,
                "stdinOnce": true,
                "command": ["/bin/plugin"],
                "args": ["0", "1", "7", "8", "it's $$(HOME) $$$$ $$x"],
                "env": [{ "name": "A", "value": "$$(B) 'c'" }],
                "workingDir": "/srv",
                "resources": { "requests": { "cpu": "500m" }, "limits": { "cpu": "1", "memory": "64Mi" } },
            }],
        },
    })
}

/// Without what says nothing.
fn told(mut pod: Value) -> Value {
    pod.as_object_mut().unwrap().remove("status");
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, value| !value.is_null() && key != "namespace");
    pod
}

#[test]
fn the_pod_is_what_was_asked_for() {
    if tool("kubectl", "kubernetes-client").is_none() {
        return;
    }
    let cluster = Cluster::start();
    let error =
        plugin().launcher(full(cluster.kubectl("registry.example/spell:2"))).start().unwrap_err();
    assert!(
        error.is_permanent() && error.to_string().contains("the cluster forbids it"),
        "{error}"
    );
    let (path, pod) = cluster.pod();
    assert_eq!(path, "/api/v1/namespaces/plugins/pods");
    let name = pod["metadata"]["name"].clone();
    assert!(name.as_str().unwrap().starts_with("pipeplug-"), "{name}");
    assert_eq!(told(pod), expected(&name));
    // It may have been made: that it was not is one answer among many.
    let of_pod = format!("{path}/{}", name.as_str().unwrap());
    let is_deletion =
        |(method, path, _): &(String, String, Value)| method == "DELETE" && *path == of_pod;
    eventually("it is deleted", || cluster.asked.lock().unwrap().iter().any(is_deletion));
}

#[test]
fn a_dry_run_makes_the_same() {
    let Some(real) = tool("kubectl", "kubernetes-client") else { return };
    let cluster = Cluster::start();
    // Which cannot attach to what it does not make.
    let script = format!(
        r#"case "$*" in *delete*) exit 1;; esac
        for arg; do shift; case $arg in --stdin | --rm) ;; *) set -- "$@" "$arg";; esac; done
        {} "$@" --dry-run=client --output=json >"$dir/pod"
        exit 9"#,
        real.display()
    );
    let place = Fake::new(&script);
    let kubectl = full(cluster.kubectl("registry.example/spell:2")).program(place.program());
    let error = plugin().launcher(kubectl).start().unwrap_err();
    assert!(error.to_string().contains("exit status 9"), "{error}");
    let pod: Value = serde_json::from_str(&fs::read_to_string(place.file("pod")).unwrap()).unwrap();
    assert_eq!(pod["metadata"]["namespace"], "plugins");
    let name = pod["metadata"]["name"].clone();
    assert_eq!(told(pod), expected(&name));
}

#[test]
fn an_image_may_have_a_plugin_of_its_own() {
    if tool("kubectl", "kubernetes-client").is_none() {
        return;
    }
    let cluster = Cluster::start();
    let builder = Plugin::preinstalled("spell").arg("--fast").handshake_timeout(LONG);
    builder.launcher(cluster.kubectl("spell")).start().unwrap_err();
    let (path, pod) = cluster.pod();
    assert_eq!(path, "/api/v1/namespaces/default/pods");
    let expected = json!({
        "name": pod["metadata"]["name"], "image": "spell", "stdin": true, "stdinOnce": true, "args": ["--fast"],
        "resources": {},
    });
    assert_eq!(pod["spec"]["containers"], json!([expected]));
}

#[test]
fn what_the_api_cannot_carry_is_refused() {
    let start = |builder: PluginBuilder, overrides: &str| {
        let kubectl = Kubectl::new("image").program("/bin/true").overrides(overrides);
        let error = builder.launcher(kubectl).start().unwrap_err();
        assert!(error.is_permanent(), "{error}");
        error.to_string()
    };
    let placed = || Plugin::preinstalled("spell");
    assert!(start(placed().arg(OsStr::from_bytes(b"\xff")), "{}").contains("it is not UTF-8"));
    assert!(start(placed().env("A=B", "c"), "{}").contains("\"A=B\""));
    assert!(start(placed(), "[").contains("they are not a JSON object"));
    assert!(start(placed(), "[]").contains("they are not a JSON object"));
    assert!(start(placed(), r#"{"spec":1}"#).contains("`spec` is not a JSON object"));
    assert!(start(placed(), r#"{"spec":{"containers":{}}}"#).contains(
        "`containers` are not a \
                                                            list"
    ));
}

#[test]
fn no_kubectl_no_cluster_and_no_context_are_told() {
    let start = |kubectl: Kubectl| {
        Plugin::preinstalled("spell").launcher(kubectl).handshake_timeout(LONG).start().unwrap_err()
    };
    let error = start(Kubectl::new("spell").program("no-such-kubectl"));
    assert!(
        matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::NoClient { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("\"no-such-kubectl\""), "{error}");
    if tool("kubectl", "kubernetes-client").is_none() {
        return;
    }
    let nowhere = format!("--server=http://127.0.0.1:{}", free_port());
    let error = start(Kubectl::new("spell").arg("--kubeconfig=/dev/null").arg(nowhere));
    assert!(
        !error.is_permanent() && error.to_string().contains("the cluster does not answer"),
        "{error}"
    );
    let error =
        start(Kubectl::new("spell").arg("--kubeconfig=/dev/null").context("no-such-context"));
    assert!(error.is_permanent() && error.to_string().contains("has no such context"), "{error}");
}

/// A kubectl that does what a script says, which finds its directory in `$dir`.
struct Fake {
    dir: TempDir,
}

impl Fake {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("kubectl");
        fs::write(&program, format!("#!/bin/sh\ndir={}\n{script}\n", dir.path().display()))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// One whose pods are processes, and that writes down what it is to delete.
    fn running(plugin: &str) -> Self {
        Self::new(&format!(
            r#"case "$*" in
            *"delete pod"*) echo "$*" >"$dir/deleted.new"; mv "$dir/deleted.new" "$dir/deleted" ;;
            *) exec {plugin} ;;
            esac"#
        ))
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("kubectl")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn builder(&self) -> PluginBuilder {
        let kubectl =
            Kubectl::new("image").program(self.program()).namespace("plugins").arg("--as=me");
        Plugin::preinstalled("spell").launcher(kubectl).handshake_timeout(LONG)
    }

    #[track_caller]
    fn assert_deleted(&self) {
        let file = self.file("deleted");
        eventually("the pod is deleted", || file.exists());
        let line = fs::read_to_string(file).unwrap();
        assert!(line.starts_with("--as=me --namespace=plugins delete pod pipeplug-"), "{line}");
        assert!(line.ends_with("--now --wait=false\n"), "{line}");
    }
}

#[test]
fn a_pod_that_was_stopped_is_left_to_kubectl() {
    let fake = Fake::running(&format!("{MISBEHAVE} plain"));
    let plugin = fake.builder().start().unwrap();
    assert_eq!(plugin.call("echo", "hello").unwrap(), "hello");
    let stopped = plugin.stop().unwrap();
    assert_eq!((stopped.status, stopped.by), (WaitStatus::Exited(0), StoppedBy::Stop));
    let mark = fake.program().to_str().unwrap().to_owned();
    eventually("what watches over it has ended", || command_lines_with(&mark).is_empty());
    assert!(!fake.file("deleted").exists());
}

#[test]
fn the_pod_is_deleted_where_kubectl_is_killed_or_the_plugin_fails() {
    let fake = Fake::running(&format!("{MISBEHAVE} plain"));
    let plugin = fake.builder().start().unwrap();
    send(plugin.pid().as_raw(), Signal::SIGKILL);
    plugin.connection().wait_closed(LONG).unwrap();
    fake.assert_deleted();

    let fake = Fake::running(&format!("{MISBEHAVE} plain"));
    let plugin = fake.builder().start().unwrap();
    plugin.call("exit", "3").unwrap_err();
    fake.assert_deleted();
}

#[test]
fn the_pod_is_deleted_where_the_start_takes_too_long() {
    let fake = Fake::running("sleep 1000");
    let error = fake.builder().handshake_timeout(Duration::from_millis(100)).start().unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::HandshakeTimeout { .. }), "{error:?}");
    fake.assert_deleted();
}

#[test]
#[cfg(linux_native)]
fn the_pod_is_deleted_where_the_host_is_killed() {
    let fake = Fake::running(&format!("{MISBEHAVE} plain"));
    let program = fake.program();
    let how = ["--kubectl", Path::to_str(&program).unwrap()];
    let mut host = Host::launched(&how, "parks", "spell", &[]);
    host.end("parks");
    eventually("the pod is deleted", || fake.file("deleted").exists());
}
