//! Exit statuses and standard error of ssh, explained.

use super::Ssh;
use super::remote::{
    A_DIRECTORY, CANNOT_ENTER, NO_DIRECTORY, NO_FILE, NO_PERMISSION, NOT_EXECUTABLE, NOT_FOUND,
};
use crate::launcher::Diagnosis;
use crate::process::WaitStatus;

/// Exit status of ssh where it failed itself (ssh(1), EXIT STATUS); a plugin may exit with it too.
const SSH_FAILED: i32 = 255;

/// Begins of the lines that ssh prints when it loses a connection.
const LOST: [&str; 11] = [
    "Timeout, server ",
    "Read from remote host ",
    "Received disconnect from ",
    "Disconnected from ",
    "Shared connection to ",
    "Write failed: ",
    "client_loop: ",
    "mux_client_",
    "packet_write_",
    "ssh_packet_",
    "ssh_dispatch_run_fatal: ",
];

/// Explains an end before the plugin has answered.
pub(super) fn of_start(ssh: &Ssh, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
    let script_says = |line: &str| stderr.iter().any(|said| said == line);
    let problem = match status.code()? {
        SSH_FAILED => return Some(of_ssh(ssh, stderr)),
        NO_DIRECTORY if script_says(CANNOT_ENTER) => {
            "its working directory cannot be entered there (status 125): make it there, or name \
             another one"
        }
        NOT_FOUND if script_says(NO_FILE) => {
            "there is no such file there (status 127): copy it there; a relative path begins at \
             the home directory"
        }
        NOT_EXECUTABLE if script_says(A_DIRECTORY) => {
            "it is a directory there (status 126): name the file of the plugin"
        }
        NOT_EXECUTABLE if script_says(NO_PERMISSION) => {
            "it is there, but cannot be executed (status 126): run `chmod +x` on it, or copy it to \
             a file system that is not mounted noexec"
        }
        NO_DIRECTORY => "`env` failed there, or it exited with 125 itself: `env` has to know `--`",
        NOT_EXECUTABLE => {
            "it is there, but the system there cannot execute it (status 126): build it for that \
             machine, or check the interpreter in its first line"
        }
        NOT_FOUND => {
            "there is no program of that name in `PATH` there, or the file is there and its \
             interpreter (the first line) or dynamic loader is not (status 127): name its path, or \
             install what it needs"
        }
        _ => return None,
    };
    Some(Diagnosis::permanent(problem))
}

/// Explains an end after the plugin has answered: every status is its own then, unless ssh lost the
/// connection.
pub(super) fn of_end(status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
    (status.code()? == SSH_FAILED).then(|| {
        if is_lost(stderr) {
            Diagnosis::passing("the connection was lost, which ends the plugin there")
        } else {
            Diagnosis::passing(
                "it exited with 255 itself, or a signal killed it there, which ssh does not \
                 distinguish",
            )
        }
    })
}

/// Explains a failure of ssh itself, by what it prints (its messages are not translated).
fn of_ssh(ssh: &Ssh, stderr: &[String]) -> Diagnosis {
    let destination = ssh.destination.to_string_lossy();
    let says = |text: &str| stderr.iter().any(|line| line.contains(text));
    let log_in = format!("`ssh {destination} true` in a terminal");
    if says("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        Diagnosis::permanent(
            "its host key has changed: the connection may be intercepted; if the change is \
             intended, remove the old key with `ssh-keygen -R`",
        )
    } else if says("Host key verification failed") {
        Diagnosis::permanent(format!("its host key is not known: run {log_in}, and check the key"))
    } else if says("Permission denied (") || says("Too many authentication failures") {
        Diagnosis::permanent(format!(
            "it refuses the login: the key has to be in the agent or without a passphrase, since \
             ssh does not ask for one; try {log_in}"
        ))
    } else if says("Could not resolve hostname") || says("hostname contains invalid characters") {
        if says("Temporary failure") {
            Diagnosis::passing("its name could not be looked up, for now")
        } else {
            Diagnosis::permanent(
                "there is no machine of that name: check it, and `Host` in ~/.ssh/config",
            )
        }
    } else if says("Connection timed out during banner exchange")
        || says("timed out") && says("connect to host")
    {
        Diagnosis::passing(format!(
            "it does not answer; ssh waits for {} s at most: `--timeout` (Ssh::connect_timeout) \
             allows more",
            ssh.connect_seconds()
        ))
    } else if says("connect to host") {
        Diagnosis::passing("it cannot be reached: is it up, and is an ssh server at that port?")
    } else if says("Bad configuration option") || says("terminating, ") && says("configuration") {
        Diagnosis::permanent("ssh does not understand its configuration")
    } else if is_lost(stderr) || says("kex_exchange_identification: ") {
        Diagnosis::passing("the connection was lost, which ends the plugin there")
    } else {
        Diagnosis::passing("ssh failed, or the plugin was killed there, or exited with 255 itself")
    }
}

/// Looks for a line by which ssh says that it has lost the connection. A plugin may write of
/// connections too, but hardly in these words.
fn is_lost(stderr: &[String]) -> bool {
    let is_of_ssh = |line: &String| {
        LOST.iter().any(|begin| line.starts_with(begin))
            || line.starts_with("Connection to ") && line.ends_with(" closed by remote host.")
            || ["Connection reset by ", "Connection closed by "]
                .iter()
                .any(|begin| line.starts_with(begin))
                && line.contains(" port ")
    };
    stderr.iter().any(is_of_ssh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_told_from_what_a_plugin_says() {
        let end = |line: &str| of_end(WaitStatus::Exited(255), &[line.to_owned()]).unwrap().problem;
        for line in [
            "Timeout, server 127.0.0.1 not responding.",
            "Connection to 127.0.0.1 closed by remote host.",
            "Connection reset by 127.0.0.1 port 22",
            "Read from remote host there: Connection reset by peer",
            "client_loop: send disconnect: Broken pipe",
        ] {
            assert!(end(line).starts_with("the connection was lost"), "{line}");
        }
        for line in [
            "Connection to the database failed",
            "write: Broken pipe",
            "Connection reset by peer",
            "",
        ] {
            assert!(end(line).starts_with("it exited with 255 itself"), "{line}");
        }
        assert_eq!(of_end(WaitStatus::Exited(127), &[NO_FILE.to_owned()]), None);
    }

    #[test]
    fn what_the_script_says_counts_with_its_status_only() {
        let start = |code, line: &str| {
            of_start(&Ssh::new("there"), WaitStatus::Exited(code), &[line.to_owned()])
                .map(|told| told.problem)
        };
        assert!(start(NOT_FOUND, NO_FILE).unwrap().starts_with("there is no such file there"));
        assert!(start(NOT_FOUND, "").unwrap().starts_with("there is no program of that name"));
        assert!(start(NO_DIRECTORY, CANNOT_ENTER).unwrap().starts_with("its working directory"));
        assert_eq!(start(1, NO_FILE), None);
    }
}
