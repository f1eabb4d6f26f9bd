//! Plugins on another machine, which is this one with a real ssh server of the test's own.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::launcher::{Launcher as _, Ssh};
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{
    Crash, Plugin, PluginBuilder, StartError, StartErrorKind, StoppedBy, WaitStatus,
};
use pipeplug_tests::{
    LONG, Script, Sshd, command_lines_with, eventually, free_port, is_running, send,
};

use crate::on_host_exit::Host;
use crate::{MISBEHAVE, misbehave};

fn there(sshd: &Sshd) -> Ssh {
    Ssh::new(Sshd::NAME).args(sshd.options())
}

/// A plugin that can be told from those of other tests, and its mark.
fn marked(what: &str) -> (PluginBuilder, String) {
    let mark = format!("ssh-test-{what}-{}", std::process::id());
    (misbehave(&["plain", &mark]).handshake_timeout(LONG), mark)
}

/// Fails to start by this, and tells why.
#[track_caller]
fn refused(builder: &PluginBuilder) -> StartError {
    let error = builder.clone().handshake_timeout(LONG).start().unwrap_err();
    let StartErrorKind::Launcher { .. } = error.kind() else { panic!("{error:?}") };
    let place = error.launcher().unwrap();
    assert!(place.ends_with("(ssh)") && error.to_string().contains(place), "{error}");
    error
}

/// The end comes to be told as that, once it is known and the last lines have been read.
#[track_caller]
fn assert_diagnosed(plugin: &Plugin, ssh: &Ssh, problem: &str) {
    let status = plugin.wait(LONG).unwrap().expect("it has ended");
    eventually(problem, || {
        let diagnosis = ssh.diagnose_end(status, &plugin.stderr_tail());
        diagnosis.is_some_and(|diagnosis| diagnosis.problem.contains(problem))
    });
}

#[test]
fn it_runs_there_and_stops_when_asked() {
    let Some(sshd) = Sshd::start() else { return };
    let (builder, mark) = marked("runs");
    let plugin = builder.launcher(there(&sshd)).start().unwrap();
    assert_eq!(plugin.call("echo", "hello").unwrap(), "hello");
    let stopped = plugin.stop().unwrap();
    assert_eq!((stopped.status, stopped.by), (WaitStatus::Exited(0), StoppedBy::Stop));
    eventually("it is gone there", || command_lines_with(&mark).is_empty());
}

#[test]
fn arguments_variables_and_directory_go_with_it_as_they_are() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = tempfile::Builder::new().prefix("it's a $dir ").tempdir().unwrap();
    for own in [
        &["7", "8"][..],
        &["plain", "a b", "$HOME", "it's", "*", "--", "-x", "\\", "a\nb", "", "ü"],
    ] {
        let builder = misbehave(own).handshake_timeout(LONG);
        let plugin = builder
            .env("A", "it's $HOME\n")
            .env("B", "")
            .env_remove("HOME")
            .current_dir(dir.path())
            .launcher(there(&sshd))
            .start()
            .unwrap();
        assert_eq!(plugin.call("args", "").unwrap(), own.join(" "));
        assert_eq!(plugin.call("env", "A").unwrap(), "it's $HOME\n");
        assert_eq!(plugin.call("env", "B").unwrap(), "");
        assert_ne!(plugin.call("env", "HOME").unwrap(), "unset", "it is the other machine's");
        assert_eq!(plugin.call("env", "CARGO_PKG_NAME").unwrap(), "unset", "it is this machine's");
        let cwd = dir.path().canonicalize().unwrap();
        assert_eq!(plugin.call("cwd", "").unwrap(), cwd.to_str().unwrap());
    }
}

#[test]
fn what_cannot_be_said_to_a_shell_is_refused() {
    let start =
        |builder: PluginBuilder| builder.launcher(Ssh::new("nowhere.invalid")).start().unwrap_err();
    let error = start(misbehave(&["a\0b"]));
    assert!(error.is_permanent() && error.to_string().contains("NUL"), "{error}");
    let error = start(misbehave(&[]).env("A=B", "c"));
    assert!(error.is_permanent() && error.to_string().contains("\"A=B\""), "{error}");
    let error = start(Plugin::builder("/opt/a=b/plugin").env("A", "b"));
    assert!(error.is_permanent() && error.to_string().contains("path with a `=`"), "{error}");
}

#[test]
fn what_is_not_there_or_cannot_be_executed_is_told() {
    let Some(sshd) = Sshd::start() else { return };
    let told = |builder: PluginBuilder, problem: &str| {
        let error = refused(&builder.launcher(there(&sshd)));
        assert!(error.is_permanent() && error.to_string().contains(problem), "{error}");
    };
    told(
        Plugin::builder("/no/such/plugin"),
        "there is no such file there (status 127): copy it there",
    );
    told(Plugin::builder("no-such-plugin"), "there is no program of that name in `PATH` there");
    told(Plugin::builder("/"), "it is a directory there (status 126)");
    let file = tempfile::NamedTempFile::new().unwrap();
    told(Plugin::builder(file.path()), "cannot be executed (status 126): run `chmod +x` on it");
    let script = Script::with_interpreter("/no/such/interpreter", "");
    told(
        Plugin::builder(script.path()),
        "its interpreter (the first line) or dynamic loader is not (status 127)",
    );
    let nowhere = misbehave(&[]).current_dir("/no/such/directory");
    told(nowhere.clone(), "its working directory cannot be entered there (status 125)");
    told(nowhere.env("A", "b"), "its working directory cannot be entered there (status 125)");
    told(
        Plugin::builder("/no/such/plugin").env("A", "b"),
        "there is no such file there (status 127)",
    );
    // Its own failure is the plugin's, not the place's.
    let error = misbehave(&["no-such-way"])
        .handshake_timeout(LONG)
        .launcher(there(&sshd))
        .start()
        .unwrap_err();
    assert!(
        matches!(error.kind(), StartErrorKind::Exited { status: WaitStatus::Exited(3), .. }),
        "{error:?}"
    );
}

#[test]
fn an_unknown_and_a_changed_host_key_are_told_apart() {
    let Some(sshd) = Sshd::start() else { return };
    let builder = misbehave(&["plain"]).launcher(there(&sshd));
    sshd.configure("id", "");
    let error = refused(&builder);
    assert!(error.is_permanent(), "{error}");
    assert!(error.to_string().contains("host key is not known: run `ssh there true`"), "{error}");
    sshd.configure("id", "other");
    let error = refused(&builder);
    assert!(error.is_permanent() && error.to_string().contains("host key has changed"), "{error}");
    sshd.configure("id", "host");
    builder.handshake_timeout(LONG).start().unwrap();
}

#[test]
fn a_refused_key_and_one_with_a_passphrase_ask_nobody() {
    let Some(sshd) = Sshd::start() else { return };
    let builder = misbehave(&["plain"]).launcher(there(&sshd));
    sshd.configure("other", "host");
    let error = refused(&builder);
    assert!(error.is_permanent() && error.to_string().contains("it refuses the login"), "{error}");
    sshd.make_key("locked", "a passphrase");
    sshd.configure("locked", "host");
    let error = refused(&builder);
    assert!(error.is_permanent() && error.to_string().contains("does not ask for one"), "{error}");
}

#[test]
fn a_host_that_is_not_there_is_told() {
    if pipeplug_tests::tool("ssh", "openssh-client").is_none() {
        return;
    }
    let to = |destination: String| {
        misbehave(&["plain"]).launcher(Ssh::new(destination).args(["-F", "none"]))
    };
    let error = refused(&to("no-such-host.invalid".into()));
    // Without a network, or a name server, that is not known for certain.
    let message = error.to_string();
    assert!(
        message.contains("no machine of that name") || message.contains("could not be looked up"),
        "{error}"
    );
    let error = refused(&to(format!("ssh://127.0.0.1:{}", free_port())));
    assert!(!error.is_permanent() && error.to_string().contains("it cannot be reached"), "{error}");
    // As an option of ssh it would print a version, or, by `-oProxyCommand=…`, run anything on this
    // machine.
    let error = refused(&to("-V".into()));
    assert!(
        error.is_permanent() && error.to_string().contains("no machine of that name"),
        "{error}"
    );
}

#[test]
fn a_host_that_says_nothing_is_given_up() {
    if pipeplug_tests::tool("ssh", "openssh-client").is_none() {
        return;
    }
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let ssh = Ssh::new(format!("ssh://127.0.0.1:{port}")).args(["-F", "none"]);
    let error = refused(&misbehave(&[]).launcher(ssh.connect_timeout(Duration::from_millis(300))));
    let message = error.to_string();
    assert!(
        !error.is_permanent() && message.contains("it does not answer; ssh waits for 1 s"),
        "{error}"
    );
    assert!(message.contains("`--timeout` (Ssh::connect_timeout) allows more"), "{error}");
}

#[test]
fn a_missing_ssh_is_told() {
    let error =
        misbehave(&[]).launcher(Ssh::new("there").program("no-such-ssh")).start().unwrap_err();
    assert!(
        matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::NoClient { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("no program \"no-such-ssh\""), "{error}");
}

#[test]
fn a_lost_connection_ends_the_plugin_and_its_calls() {
    let Some(sshd) = Sshd::start() else { return };
    let (builder, mark) = marked("lost");
    let plugin = builder.launcher(there(&sshd)).start().unwrap();
    let call = plugin.request("never", "").begin().unwrap();
    for session in sshd.sessions() {
        send(session, Signal::SIGKILL);
    }
    let error = call.wait_timeout(LONG).unwrap_err();
    assert_eq!(Crash::of(&error).unwrap().launcher.as_deref(), Some("on there (ssh)"));
    assert_diagnosed(&plugin, &there(&sshd), "the connection was lost");
    eventually("it is gone there", || command_lines_with(&mark).is_empty());
}

#[test]
fn a_silent_connection_counts_as_lost_after_the_interval_and_one_for_each_question() {
    let Some(sshd) = Sshd::start() else { return };
    let (builder, mark) = marked("silent");
    let ssh = there(&sshd).alive_interval(Duration::from_secs(1)).alive_count(2);
    let plugin = builder.launcher(ssh.clone()).start().unwrap();
    let call = plugin.request("never", "").begin().unwrap();
    let sessions = sshd.sessions();
    sessions.iter().for_each(|session| send(*session, Signal::SIGSTOP));
    let silent_from = Instant::now();
    call.wait_timeout(LONG).unwrap_err();
    // Three seconds, as documented, counted by ssh in whole ones; the rest is for a busy machine.
    let took = silent_from.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(13)).contains(&took), "{took:?}");
    assert_diagnosed(&plugin, &ssh, "the connection was lost");
    sessions.iter().for_each(|session| send(*session, Signal::SIGCONT));
    eventually("it is gone there", || command_lines_with(&mark).is_empty());
}

#[test]
fn exit_statuses_after_the_first_answer_are_the_plugins_own() {
    let Some(sshd) = Sshd::start() else { return };
    for code in [125, 126, 127] {
        let builder = misbehave(&["plain"]).handshake_timeout(LONG);
        let plugin = builder.launcher(there(&sshd)).start().unwrap();
        let error = plugin.call("exit", code.to_string()).unwrap_err();
        assert_eq!(plugin.wait(LONG).unwrap(), Some(WaitStatus::Exited(code)));
        let crash = Crash::of(&error).unwrap();
        assert_eq!(crash.diagnosis, None, "{code}");
        let later = plugin.call("echo", "").unwrap_err().to_string();
        assert!(!later.contains("there is no") && !later.contains("cannot be"), "{later}");
    }
    // As ssh itself has it, so that it is told apart by what ssh prints, and by that alone.
    let plugin =
        misbehave(&["plain"]).handshake_timeout(LONG).launcher(there(&sshd)).start().unwrap();
    plugin.call("exit", "255").unwrap_err();
    assert_diagnosed(&plugin, &there(&sshd), "it exited with 255 itself");
    let printed = ["Timeout of 3 s", "the db says: Connection reset by peer"].map(str::to_owned);
    let diagnosis = there(&sshd).diagnose_end(WaitStatus::Exited(255), &printed).unwrap();
    assert!(diagnosis.problem.starts_with("it exited with 255 itself"), "{diagnosis:?}");
}

#[test]
fn one_that_is_killed_there_is_told() {
    let Some(sshd) = Sshd::start() else { return };
    let (builder, mark) = marked("killed");
    let plugin = builder.launcher(there(&sshd)).start().unwrap();
    let call = plugin.request("never", "").begin().unwrap();
    // The client's command line has the mark, too, and its process group is the host's affair.
    let remote =
        command_lines_with(&mark).into_iter().find(|pid| *pid != plugin.pid().as_raw()).unwrap();
    send(remote, Signal::SIGKILL);
    call.wait_timeout(LONG).unwrap_err();
    // The server reports the signal to ssh, which does not pass it on.
    assert_diagnosed(&plugin, &there(&sshd), "or a signal killed it there");
    assert!(!is_running(remote));
}

#[test]
#[cfg(linux_native)]
fn it_ends_with_a_host_that_is_killed() {
    let Some(sshd) = Sshd::start() else { return };
    let [option, config] = sshd.options();
    let mark = format!("ssh-test-host-{}", std::process::id());
    let via = format!("ssh {option} {config} -oBatchMode=yes {}", Sshd::NAME);
    let mut host = Host::launched(&["--via", &via], "parks", MISBEHAVE, &["plain", &mark]);
    assert!(command_lines_with(&mark).len() >= 2, "here and there");
    host.end("parks");
    eventually("it is gone there", || command_lines_with(&mark).is_empty());
}

#[test]
fn what_the_configuration_forwards_and_shares_is_not_for_plugins() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let [agent, master] = ["agent", "master"].map(|name| dir.path().join(name));
    let mut command = Command::new("ssh-agent");
    let _running =
        Agent(command.arg("-D").arg("-a").arg(&agent).stdout(Stdio::null()).spawn().unwrap());
    eventually("the agent listens", || agent.exists());
    sshd.add_settings(&format!(
        "IdentityAgent {}\n  ForwardAgent yes\n  ControlMaster auto\n  ControlPath {}\n  \
         ControlPersist yes\n  RemoteForward {} 127.0.0.1:9\n  RemoteCommand false\n  RequestTTY \
         force\n",
        agent.display(),
        master.display(),
        dir.path().join("forwarded").display(),
    ));
    let builder = misbehave(&["plain"]).handshake_timeout(LONG);
    let plugin = builder.clone().launcher(there(&sshd)).start().unwrap();
    assert_eq!(plugin.call("env", "SSH_AUTH_SOCK").unwrap(), "unset");
    assert_eq!(plugin.call("env", "SSH_TTY").unwrap(), "unset");
    assert!(!dir.path().join("forwarded").exists(), "a port or socket of the configuration");
    assert!(!master.exists(), "other connections would end with the plugin's");
    // An explicit option takes effect.
    let plugin = builder.launcher(there(&sshd).arg("-oForwardAgent=yes")).start().unwrap();
    assert_ne!(plugin.call("env", "SSH_AUTH_SOCK").unwrap(), "unset");
}

/// Settings of ssh_config(5) that would break a plugin or lend it what is the user's, and as what
/// they count, in the words of `ssh -G`.
const SETTINGS: [(&str, &str); 18] = [
    ("PermitLocalCommand yes", "permitlocalcommand no"),
    ("EscapeChar ~", "escapechar none"),
    ("RequestTTY force", "requesttty false"),
    ("LogLevel QUIET", "loglevel INFO"),
    ("VisualHostKey yes", "visualhostkey no"),
    ("BatchMode no", "batchmode yes"),
    ("ConnectTimeout 1", "connecttimeout 8"),
    ("ConnectionAttempts 100", "connectionattempts 1"),
    ("ServerAliveInterval 1", "serveraliveinterval 15"),
    ("ServerAliveCountMax 9", "serveralivecountmax 2"),
    ("ControlMaster auto", "controlmaster false"),
    ("ForwardAgent yes", "forwardagent no"),
    ("ForwardX11 yes", "forwardx11 no"),
    ("Tunnel yes", "tunnel false"),
    // OpenSSH 8.7, and the last one 9.6.
    ("StdinNull yes", "stdinnull no"),
    ("ForkAfterAuthentication yes", "forkafterauthentication no"),
    ("SessionType none", "sessiontype default"),
    ("ChannelTimeout session=1s", "channeltimeout none"),
];

/// Those that the ssh here knows: it refuses a file with others.
fn known_settings() -> Vec<(&'static str, &'static str)> {
    let is_known = |setting: &str| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-G", "-F", "none", "-o", &setting.replacen(' ', "=", 1), "there"]);
        ssh.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    SETTINGS.into_iter().filter(|(setting, _)| is_known(setting)).collect()
}

#[test]
fn settings_that_would_break_a_plugin_count_as_others() {
    let Some(sshd) = Sshd::start() else { return };
    let known = known_settings();
    known.iter().for_each(|(setting, _)| sshd.add_settings(setting));
    sshd.add_settings("RemoteCommand false\n  DynamicForward 127.0.0.1:9");
    let explains =
        Script::new("[ \"$1\" = -V ] || exec ssh -G \"$@\" >\"$dir/settings\"\nexec ssh -V");
    misbehave(&[]).launcher(there(&sshd).program(explains.path())).start().unwrap_err();
    let counted = std::fs::read_to_string(explains.dir().join("settings")).unwrap();
    let counts = |line: &str| counted.lines().any(|counted| counted == line);
    for (setting, as_what) in known {
        assert!(counts(as_what), "{setting}, as {as_what}:\n{counted}");
    }
    assert!(!counts("remotecommand false") && counts("clearallforwardings yes"), "{counted}");
}

#[test]
fn settings_that_would_break_a_plugin_do_not() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    known_settings().iter().for_each(|(setting, _)| sshd.add_settings(setting));
    sshd.add_settings(&format!("LocalCommand echo printed; touch {}", path("ran")));
    sshd.add_settings(&format!(
        "RemoteCommand echo printed\n  ControlPath {}\n  ControlPersist yes",
        path("master")
    ));
    sshd.add_settings(&format!(
        "DynamicForward 127.0.0.1:{}\n  ExitOnForwardFailure yes",
        free_port()
    ));
    sshd.add_settings(&format!("LocalForward {} 127.0.0.1:9", path("forwarded")));
    let plugin =
        misbehave(&["plain"]).handshake_timeout(LONG).launcher(there(&sshd)).start().unwrap();
    // At the begin of a line, where an escape stands.
    assert_eq!(plugin.call("echo", "\n~.\n~?\n").unwrap(), "\n~.\n~?\n");
    assert_eq!(plugin.call("env", "SSH_TTY").unwrap(), "unset");
    let left: Vec<_> = dir.path().read_dir().unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
