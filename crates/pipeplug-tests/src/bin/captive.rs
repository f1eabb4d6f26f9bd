//! A plugin for tests that tries what its container forbids: `captive [how]`, and then one attack
//! for each command.

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, Uid, setuid};
use pipeplug_guest::{Direction, Format};
use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};
use pipeplug_tests::{chunk, read_chunk};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("stubborn") => stubborn(),
        // Never answers, and heeds nothing.
        Some("mute") => deaf(),
        // Beside one that runs: its end from inside.
        Some("kill") => kill_others(),
        _ => Guest::new().name("captive").handler(request).register().wait(),
    }
}

fn request(_main: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    let text = request.text()?.to_owned();
    Ok(match request.command() {
        "env" => std::env::vars()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect::<String>()
            .into(),
        "args" => std::env::args().collect::<Vec<_>>().join(" ").into(),
        "cwd" => std::env::current_dir()?.display().to_string().into(),
        "read" => fs::read(text)?.into(),
        "write" => fs::write(text, "something")?.into(),
        "interfaces" => interfaces()?.into(),
        "connect" => {
            TcpStream::connect_timeout(&text.parse()?, Duration::from_secs(5)).map(drop)?.into()
        }
        "become-root" => setuid(Uid::from_raw(0))?.into(),
        "threads" => threads(text.parse()?).to_string().into(),
        "allocate" => allocate(text.parse()?).to_string().into(),
        "burn" => burn(Duration::from_millis(text.parse()?))?.as_millis().to_string().into(),
        "exit" => std::process::exit(text.parse()?),
        _ => return request.unknown(),
    })
}

/// Answers the first request, and then ignores requests and signals.
fn stubborn() -> ! {
    let request = read_chunk(Format::Standard, &mut io::stdin()).expect("the host speaks first");
    let id = request.thread_id.as_u64();
    let answer = chunk(Format::Standard, id, Direction::Response, "GetMetadata", b"{}");
    io::stdout().write_all(&answer).expect("the host reads");
    io::stdout().flush().expect("the host reads");
    deaf()
}

fn deaf() -> ! {
    // There is no other thread that could take one.
    SigSet::all().thread_block().expect("a mask can be set");
    loop {
        thread::park();
    }
}

/// Kills all processes but the init and itself.
fn kill_others() -> ExitCode {
    let own = i32::try_from(std::process::id()).expect("a process id");
    let entries = fs::read_dir("/proc").expect("there is a /proc").filter_map(Result::ok);
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in all.filter(|pid| *pid != 1 && *pid != own) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is of the same user");
    }
    ExitCode::SUCCESS
}

fn interfaces() -> io::Result<String> {
    let text = fs::read_to_string("/proc/net/dev")?;
    let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
    Ok(names.map(str::trim).collect::<Vec<_>>().join(" "))
}

/// Starts up to `wanted` threads, and returns how many the system allowed.
fn threads(wanted: usize) -> usize {
    let over: &'static AtomicBool = Box::leak(Box::default());
    let wait = move || {
        while !over.load(Ordering::SeqCst) {
            thread::park();
        }
    };
    let had =
        (0..wanted).map_while(|_| thread::Builder::new().spawn(wait).ok()).collect::<Vec<_>>();
    over.store(true, Ordering::SeqCst);
    had.iter().for_each(|thread| thread.thread().unpark());
    had.len()
}

/// Allocates this number of MiB and uses them.
fn allocate(mebibytes: usize) -> usize {
    let had: Vec<Vec<u8>> = (0..mebibytes).map(|_| vec![1; 1 << 20]).collect();
    had.iter().map(|block| usize::from(block[0])).sum()
}

/// The CPU time that two threads get within that time.
fn burn(time: Duration) -> Result<Duration, HandlerError> {
    let before = cpu_time()?;
    let until = Instant::now() + time;
    let spin = move || while Instant::now() < until {};
    let other = thread::spawn(spin);
    spin();
    other.join().map_err(|_| "it panicked")?;
    Ok(cpu_time()? - before)
}

fn cpu_time() -> Result<Duration, HandlerError> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| {
        let micros = nix::sys::time::TimeValLike::num_microseconds(&time);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}
