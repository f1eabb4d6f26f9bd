//! A plugin that tries to break out of its sandbox. Each command is an attack. The reply is `done
//! …`, or the error of the system.
//!
//! Without a sandbox every attack succeeds, which the tests check first.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::kill;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, listen, sendto, socket,
};
use nix::unistd::{self, Pid};
use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};
use pipeplug_tests::{attack, probe, probe_foreign, system_call};

/// Far above any number that a test has open.
const DESCRIPTORS: i32 = 4096;

fn main() -> ExitCode {
    // Before this program opens descriptors of its own.
    let at_start = descriptors();
    let handler = move |main: &Main, request: &mut Request| match request.command() {
        "descriptors" => Ok(at_start.as_str().into()),
        _ => answer(main, request),
    };
    let mut guest = Guest::new().handler(handler);
    // The permissions that it declares, whatever it may do.
    if let Ok(declared) = std::env::var("BURGLAR_DECLARES") {
        guest = guest.metadata("pipeplug.permissions", declared);
    }
    guest.register().wait()
}

fn answer(main: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    let text = String::from_utf8_lossy(request.buffer()).into_owned();
    let got = match request.command() {
        "environment" => Ok(environment()),
        "args" => Ok(std::env::args().collect::<Vec<_>>().join(" ")),
        "session" => Ok(unistd::getsid(None).map_err(io::Error::from)?.to_string()),
        "limit" => limit(&text),

        // Files.
        "read" => fs::read(&text).map(|bytes| format!("{} bytes", bytes.len())),
        "list" => fs::read_dir(&text).map(|dir| format!("{} entries", dir.count())),
        "create" => File::create(&text).map(|_| "created".into()),
        "append" => OpenOptions::new().append(true).open(&text).map(|_| "open".into()),
        "truncate" => {
            nix::unistd::truncate(text.as_str(), 0).map(|()| "truncated".into()).map_err(Into::into)
        }
        "remove" => fs::remove_file(&text).map(|()| "removed".into()),
        "execute" => Command::new(&text).status().map(|status| status.to_string()),
        "grow" => grow(&text),

        // The network, and other processes.
        "connect" => TcpStream::connect(("127.0.0.1", text.parse()?)).map(|_| "connected".into()),
        "listen" => TcpListener::bind(("127.0.0.1", text.parse()?)).map(|_| "listening".into()),
        "fast-open" => fast_open(text.parse()?),
        "listen-unbound" => tcp_socket().and_then(|socket| {
            listen(&socket, Backlog::MAXCONN)?;
            Ok("listening".into())
        }),
        "udp" => UdpSocket::bind("127.0.0.1:0").map(|_| "bound".into()),
        "unix" => UnixStream::connect(&text).map(|_| "connected".into()),
        "abstract" => SocketAddr::from_abstract_name(&text)
            .and_then(|address| UnixStream::connect_addr(&address))
            .map(|_| "connected".into()),
        "pair" => UnixStream::pair().map(|_| "paired".into()),
        "datagram-pair" => UnixDatagram::pair().map(|_| "paired".into()),
        "signal" => {
            kill(Pid::from_raw(text.parse()?), None).map(|()| "sent".into()).map_err(Into::into)
        }
        "terminal" => File::open("/dev/tty").map(|_| "open".into()),

        // System calls and resources.
        "system-call" => system_call(&text).map(|result| result.to_string()).map_err(Into::into),
        "probe" => probe_range(&text),
        "foreign" => probe_foreign()
            .map(|outcome| outcome.map_or("none".into(), |it| it.to_string()))
            .map_err(Into::into),
        "allocate" => allocate(text.parse()?),
        "open" => (0..text.parse()?)
            .map(|_| File::open("/dev/null"))
            .collect::<io::Result<Vec<_>>>()
            .map(|all| format!("{} files", all.len())),
        "spin" => spin(),
        "privileges" => privileges(),
        "abort" => std::process::abort(),
        "call-host" => return Ok(main.call(&text, "")?.into()),
        "notify-host" => return Ok(main.notify(&text, "")?.into()),
        other => match attack(other, &text) {
            Some(got) => got,
            None => return request.unknown(),
        },
    };
    Ok(match got {
        Ok(got) => format!("done: {got}").into(),
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", Errno::from_raw(number)).into(),
            None => error.to_string().into(),
        },
    })
}

fn environment() -> String {
    let line =
        |(name, value): (OsString, OsString)| format!("{}={}", name.display(), value.display());
    std::env::vars_os().map(line).collect::<Vec<_>>().join("\n")
}

/// Each open descriptor and what is behind it. The list in `/proc` is out of reach in a sandbox, a
/// single entry is not.
fn descriptors() -> String {
    let line = |number| {
        let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        Some(format!("{number} {}", target.display()))
    };
    (0..DESCRIPTORS).filter_map(line).collect::<Vec<_>>().join("\n")
}

fn limit(name: &str) -> io::Result<String> {
    let resource = match name {
        "core" => Resource::RLIMIT_CORE,
        "memory" => Resource::RLIMIT_AS,
        "pending signals" => Resource::RLIMIT_SIGPENDING,
        _ => return Err(io::Error::other("no such limit")),
    };
    Ok(getrlimit(resource).map(|(soft, hard)| format!("{soft} {hard}"))?)
}

/// Writes this number of bytes to a new file: `PATH BYTES`.
fn grow(text: &str) -> io::Result<String> {
    let (path, bytes) = text.split_once(' ').ok_or_else(|| io::Error::other("PATH BYTES"))?;
    let bytes = bytes.parse().map_err(io::Error::other)?;
    File::create(path)?.write_all(&vec![0; bytes])?;
    Ok(format!("{bytes} bytes"))
}

fn tcp_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Connects to a port with what it sends, and not by connect(2): tcp(7), `MSG_FASTOPEN`.
fn fast_open(port: u16) -> io::Result<String> {
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    let socket = tcp_socket()?;
    let sent = sendto(socket.as_raw_fd(), b"hi", &SockaddrIn::new(127, 0, 0, 1, port), flags)?;
    Ok(format!("{sent} bytes"))
}

/// Result of each system call from `FIRST` to `LAST`, one per line.
fn probe_range(text: &str) -> io::Result<String> {
    let (first, last) = text.split_once(' ').ok_or_else(|| io::Error::other("FIRST LAST"))?;
    let [first, last] = [first, last].map(|number| number.parse::<u32>().map_err(io::Error::other));
    let mut lines = Vec::new();
    for number in first?..=last? {
        lines.push(format!("{number} {}", probe(number)?));
    }
    Ok(lines.join("\n"))
}

fn allocate(bytes: usize) -> io::Result<String> {
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| io::Error::from(Errno::ENOMEM))?;
    Ok(format!("{} bytes", memory.capacity()))
}

/// Uses CPU time as long as it is allowed to, at most a minute.
fn spin() -> io::Result<String> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        std::hint::black_box(begun);
    }
    Ok("a minute".into())
}

/// Privileges of a program that this process executes.
fn privileges() -> io::Result<String> {
    let output = Command::new("/bin/sh")
        .args([
            "-c",
            "while read l; do case $l in Cap*|NoNew*) echo $l;; esac; done </proc/self/status",
        ])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" "))
}
