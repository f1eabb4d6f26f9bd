//! Variables of the host's environment that a plugin sees.

use std::process::Command;

use pipeplug_host::Plugin;
use pipeplug_host::launcher::CommandPrefix;
use pipeplug_host::process::EnvPlan;

use crate::{BURGLAR, plain};

/// Secret in the environment of a host.
const SECRETS: [&str; 5] = [
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "SSH_AUTH_SOCK",
    "DBUS_SESSION_BUS_ADDRESS",
    "LD_PRELOAD",
];

/// Set in the host that the test is for; the variable itself says which host that is.
const ROLE: &str = "PIPEPLUG_TEST_ROLE";

fn environment(plugin: &Plugin) -> Vec<String> {
    let text = plugin.call("environment", "").unwrap();
    text.trim_start_matches("done: ").lines().map(str::to_owned).collect()
}

/// The same test in a process of its own, with an environment of its own.
fn in_host(test: &str) -> std::process::Output {
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args([&format!("environment::{test}"), "--exact", "--nocapture"]).env(ROLE, test);
    for name in EnvPlan::PASSED.iter().chain(&["LC_ALL", "LC_TIME"]) {
        host.env(name, format!("value of {name}"));
    }
    for name in SECRETS.iter().filter(|name| **name != "LD_PRELOAD") {
        host.env(name, "a secret");
    }
    // Which the dynamic loader would complain of.
    host.env("LD_PRELOAD", "")
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", "/tmp")
        .env("RUST_LOG", "")
        .output()
        .unwrap()
}

fn is_host_of(test: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|role| role == test)
}

#[test]
fn a_hosts_secrets_do_not_arrive() {
    const TEST: &str = "a_hosts_secrets_do_not_arrive";
    if !is_host_of(TEST) {
        let output = in_host(TEST);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let names = |plugin: &Plugin| -> Vec<_> {
        environment(plugin)
            .iter()
            .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
            .collect()
    };
    let seen = names(&Plugin::start(BURGLAR).unwrap());
    let mut listed: Vec<_> =
        EnvPlan::PASSED.iter().chain(&["LC_ALL", "LC_TIME"]).map(|it| (*it).to_owned()).collect();
    listed.sort_unstable();
    assert_eq!(seen, listed);

    let one = names(
        &Plugin::builder(BURGLAR).env_pass("GITHUB_TOKEN").env_pass("NOT_SET").start().unwrap(),
    );
    assert_eq!(one.len(), listed.len() + 1);
    assert!(one.contains(&"GITHUB_TOKEN".to_owned()), "{one:?}");

    let all =
        names(&Plugin::builder(BURGLAR).env_inherit().env_remove("LD_PRELOAD").start().unwrap());
    for secret in SECRETS {
        assert_eq!(all.contains(&secret.to_owned()), secret != "LD_PRELOAD", "{all:?}");
    }
    // What carries the pipes elsewhere may need anything of it.
    let carried = names(
        &Plugin::builder(BURGLAR).launcher(CommandPrefix::new(["/usr/bin/env"])).start().unwrap(),
    );
    assert!(carried.contains(&"SSH_AUTH_SOCK".to_owned()), "{carried:?}");
}

#[test]
fn variables_are_set_and_left_out() {
    let plugin = plain().env("PIPEPLUG_TEST", "a=b c").env_remove("PATH").start().unwrap();
    assert_eq!(plugin.call("env", "PIPEPLUG_TEST").unwrap(), "a=b c");
    assert_eq!(plugin.call("env", "PATH").unwrap(), "unset");
    let inherits = plain().start().unwrap();
    assert_eq!(inherits.call("env", "PATH").unwrap(), std::env::var("PATH").unwrap());
    assert_eq!(inherits.call("env", "PIPEPLUG_TEST").unwrap(), "unset");
}
