//! A plugin for tests: `misbehave <how> [more…]`, and then one behaviour for each command.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_guest::Format;
use pipeplug_guest::Options;
use pipeplug_guest::{Failure, Guest, HandlerError, Main, OnEnd, Reply, Request, Stop};
use pipeplug_tests::misbehave_raw;

/// Events in order.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Reason that the hook of a stop received.
static STOP: Mutex<Option<Stop>> = Mutex::new(None);
static TOLD: Condvar = Condvar::new();

fn main() -> ExitCode {
    let guest = Guest::new().name("misbehave").handler(answer);
    // Skips the numbers of descriptors, which are all digits.
    let own: Vec<String> = std::env::args()
        .skip(1)
        .skip_while(|arg| arg.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let own = match own[..] {
        // The option for the socket precedes them.
        ["--pipeplug-listen", ref own @ ..] => own.get(1..).unwrap_or_default(),
        ref own => own,
    };
    match *own {
        // Its metadata is the builder's.
        [] | ["plain", ..] => with_metadata(guest).register().wait(),
        // Its metadata is the call-back's, which gives the second argument.
        ["asked", metadata] => {
            let metadata = metadata.to_owned();
            let answer = move |main: &Main, request: &mut Request| match request.command() {
                "GetMetadata" => Ok(metadata.as_str().into()),
                _ => answer(main, request),
            };
            guest.handler(answer).register().wait()
        }
        ["calls-from-start", times] => {
            let times = times.parse().unwrap_or(1);
            guest.start(move |main: &Main| calls_from_start(main, times)).register().wait()
        }
        // Reads its configuration in the start call-back: numbers with names.
        ["configured"] => with_metadata(guest).start(read_config).register().wait(),
        // Speaks these versions of an interface.
        ["speaks", ref versions @ ..] => {
            let versions = versions.iter().filter_map(|version| version.parse().ok());
            let start = |_: &Main| {
                eprintln!("the start call-back runs");
                Ok(())
            };
            with_metadata(guest).interface_versions(versions).start(start).register().wait()
        }
        ["start-fails"] => {
            guest.start(|_: &Main| Err("the database is locked".into())).register().wait()
        }
        ["start-hangs"] => {
            let start = |_: &Main| {
                thread::sleep(Duration::from_secs(3600));
                Ok(())
            };
            with_metadata(guest).start(start).register().wait()
        }
        ["start-fails-late"] => {
            with_metadata(guest)
                .start(|main: &Main| {
                    // After the host's first call, which is held back.
                    main.call("go-on", "")?;
                    Err("the database is locked".into())
                })
                .register()
                .wait()
        }
        ["tells-stop"] => {
            let on_stop = |why| {
                *lock_told() = Some(why);
                TOLD.notify_all();
            };
            with_metadata(guest).on_stop(on_stop).register().wait()
        }
        // Installs a subscriber of its own, as most plugins that log do.
        ["logs"] => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
            with_metadata(guest).register().wait()
        }
        // The same, with the one whose level the host sets.
        ["logging"] => match pipeplug_guest::logging() {
            Ok(()) => {
                let again = pipeplug_guest::logging().is_err();
                let guest = with_metadata(guest).metadata("Refused", again.to_string());
                guest.register().wait()
            }
            Err(error) => {
                eprintln!("misbehave: {error}");
                ExitCode::FAILURE
            }
        },
        ["classic"] => with_metadata(guest).format(Format::Classic).register().wait(),
        ["grace", "ever"] => with_metadata(guest).grace(Duration::MAX).register().wait(),
        ["grace", millis] => with_metadata(guest).grace(millis_of(millis)).register().wait(),
        // Works on and never waits: the runtime ends it.
        ["busy-main", ..] => {
            let _main = with_metadata(guest).grace(Duration::from_millis(100)).register();
            loop {
                thread::sleep(Duration::from_secs(60));
            }
        }
        // Goes on without a host, and says so in a file.
        ["stays", file] => {
            let main = with_metadata(guest).on_end(OnEnd::Stay).register();
            while main.connection().close_reason().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            // For longer than the end of the process would take.
            thread::sleep(Duration::from_millis(200));
            write(file, "stayed");
            ExitCode::from(42)
        }
        // Tells in a file that main's destructors ran.
        ["with-guard", file] => {
            let _guard = Guard(file.to_owned());
            with_metadata(guest).grace(Duration::from_millis(100)).register().wait()
        }
        ["one-at-a-time", window] => {
            let mut options = Options::default();
            options.window = window.parse().unwrap_or(1);
            options.handlers = std::num::NonZeroUsize::MIN;
            with_metadata(guest).options(options).register().wait()
        }
        _ => match misbehave_raw(own, descriptors()) {
            Ok(true) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("misbehave: {own:?}: {error}");
                ExitCode::from(4)
            }
            Ok(false) => {
                eprintln!("misbehave: unknown way to misbehave: {own:?}");
                ExitCode::from(3)
            }
        },
    }
}

fn lock_told() -> MutexGuard<'static, Option<Stop>> {
    STOP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Descriptors of the command line.
fn descriptors() -> Option<[i32; 2]> {
    let mut numbers = std::env::args().skip(1).map_while(|arg| arg.parse().ok());
    Some([numbers.next()?, numbers.next()?])
}

fn with_metadata<S, R>(guest: Guest<S, R>) -> Guest<S, R>
where
    S: pipeplug_guest::Start,
    R: pipeplug_guest::Handler,
{
    guest.metadata("Description", "misbehaves").metadata("Cmd", "misbehave")
}

/// Writes a line in a file when it is dropped.
struct Guard(String);

impl Drop for Guard {
    fn drop(&mut self) {
        write(&self.0, "dropped");
    }
}

/// A plugin whose file cannot be written has no other way to tell.
fn write(file: &str, text: &str) {
    if let Err(error) = fs::write(file, text) {
        eprintln!("misbehave: {file}: {error}");
    }
}

fn read_config(main: &Main) -> Result<(), HandlerError> {
    let numbers: Option<BTreeMap<String, u16>> = main.config()?;
    saw(&format!("{numbers:?}"));
    Ok(())
}

fn calls_from_start(main: &Main, times: usize) -> Result<(), HandlerError> {
    for i in 0..times {
        let reply = main.call("double", i.to_string())?;
        if reply != (2 * i).to_string() {
            return Err(format!("the double of {i} is not {reply}").into());
        }
    }
    // Time for what the host has sent meanwhile to come in too early.
    thread::sleep(Duration::from_millis(50));
    saw("start is done");
    Ok(())
}

fn saw(what: &str) {
    if let Ok(mut seen) = SEEN.lock() {
        seen.push(what.to_owned());
    }
}

fn answer(main: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    let command = request.command().to_owned();
    if command == "echo" {
        // Not as text, so that large ones are not copied.
        return Ok(request.take_buffer().into());
    }
    let text = String::from_utf8_lossy(request.buffer()).into_owned();
    match command.as_str() {
        // What came, and in which order.
        "saw" => {
            saw(&text);
            Ok(Reply::empty())
        }
        "seen" => Ok(SEEN.lock().map_or_else(|_| String::new(), |seen| seen.join("\n")).into()),
        "count" => {
            COUNT.fetch_add(1, Ordering::SeqCst);
            Ok(Reply::empty())
        }
        "counted" => Ok(COUNT.load(Ordering::SeqCst).to_string().into()),

        // What it was started with.
        "args" => Ok(all_args(main).into()),
        "arg0" => Ok(std::env::args().next().unwrap_or_default().into()),
        "env" => Ok(std::env::var(&text).unwrap_or_else(|_| "unset".into()).into()),
        "cwd" => Ok(std::env::current_dir()?.display().to_string().into()),
        "config" => match main.config::<serde_json::Value>()? {
            Some(config) => Ok(config.to_string().into()),
            None => Ok("none".into()),
        },
        "version" => Ok(format!("{:?}", main.interface_version()).into()),
        "host-says" => Ok(main.host().get(&text).cloned().unwrap_or_default().into()),

        // Time.
        "sleep" => {
            thread::sleep(millis_of(&text));
            Ok(text.into())
        }
        "slow-count" => {
            thread::sleep(Duration::from_micros(30));
            COUNT.fetch_add(1, Ordering::SeqCst);
            Ok(Reply::empty())
        }
        // Works until the plugin is to end.
        "until-stop" => {
            let why = main.stopping().wait_timeout(Duration::MAX);
            Ok(format!("{why:?}").into())
        }
        // The same, where the hook of "tells-stop" ends the wait.
        "until-told" => {
            let mut told = lock_told();
            while told.is_none() {
                told = TOLD.wait(told).unwrap_or_else(PoisonError::into_inner);
            }
            Ok(format!("{told:?}").into())
        }
        "never" => loop {
            thread::park();
        },

        "left" => Ok(left(request).into()),
        // Waits until the caller cancels.
        "until-cancelled" => {
            saw("begun");
            let cancelled = request.cancellation().wait_timeout(Duration::from_secs(60));
            saw(if cancelled { "cancelled" } else { "not cancelled" });
            Ok("too late".into())
        }

        // The other way.
        "call-host" => Ok(main.call(&text, "from the guest")?.into()),
        "code-of-host" => {
            let error = main.call(&text, "").err();
            Ok(error.as_ref().and_then(|error| error.code()).unwrap_or("none").into())
        }
        "progress-of-host" => {
            let (request, progress) = main.request(&text, "").progress();
            let call = request.begin()?;
            let reports: Vec<_> =
                progress.map(|report| format!("{} {}", report.done, report.message)).collect();
            call.wait()?;
            Ok(reports.join(", ").into())
        }
        "notify-host" => {
            main.notify(&text, "from the guest")?;
            Ok(Reply::empty())
        }
        // Back and forth, for as many words as there are; each side says how much time is left.
        "relay" => match text.split_once(' ') {
            None => Ok(left(request).into()),
            Some((_, rest)) => {
                Ok(format!("{} {}", left(request), main.call("relay", rest)?).into())
            }
        },
        "panic" => panic!("{text}"),
        "fail" => Err(Failure::new(text, "it failed").data(vec![1, 2].into()).into()),
        // Says how far it is, and dies the first time that it is asked to.
        "steps" => {
            request.progress(1, Some(2), "one");
            if !text.is_empty() && fs::File::create_new(&text).is_ok() {
                std::process::abort();
            }
            request.progress(2, Some(2), "two");
            Ok(Reply::empty())
        }

        // Standard input and output.
        "print" => print_lines(&text),
        "err-lines" => err_lines(&text, ""),
        "long-err-lines" => err_lines(&text, &format!(" {}", "x".repeat(1024))),
        "log-events" => {
            let _span = tracing::info_span!("asked", by = "test").entered();
            tracing::error!(target: "words", text, count = 1, "an error");
            tracing::warn!(target: "words", text, count = 2, "a warning");
            tracing::info!(target: "words", text, count = 3, "information");
            tracing::debug!(target: "words", text, count = 4, "a detail");
            tracing::trace!(target: "words", text, count = 5, "a trace");
            Ok(Reply::empty())
        }
        "err-bytes" => {
            io::stderr().write_all(request.buffer())?;
            Ok(Reply::empty())
        }
        "read-stdin" => {
            let mut bytes = Vec::new();
            let read = io::stdin().read_to_end(&mut bytes)?;
            Ok(read.to_string().into())
        }
        "sh" => Ok(shell(&text)?.into()),
        "sh-prints" => {
            let status = Command::new("/bin/sh").args(["-c", &text]).status()?;
            Ok(status.to_string().into())
        }

        // The end.
        "exit" => std::process::exit(text.parse()?),
        "abort" => std::process::abort(),
        "panic-and-exit" => {
            // As a panic of `main` does.
            let _ = std::panic::catch_unwind(|| panic!("{text}"));
            std::process::exit(101)
        }
        _ => request.unknown(),
    }
}

/// Milliseconds until the deadline of the request.
fn left(request: &Request) -> String {
    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    request
        .deadline()
        .map_or_else(|| "none".into(), |deadline| left(deadline).as_millis().to_string())
}

fn all_args(main: &Main) -> String {
    main.args().iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn millis_of(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap_or(0))
}

fn print_lines(count: &str) -> Result<Reply, HandlerError> {
    for i in 0..count.parse::<usize>()? {
        println!("printed line {i}");
    }
    Ok(Reply::empty())
}

fn err_lines(count: &str, end: &str) -> Result<Reply, HandlerError> {
    let mut stderr = io::BufWriter::new(io::stderr());
    for i in 0..count.parse::<usize>()? {
        writeln!(stderr, "line {i}{end}")?;
    }
    stderr.flush()?;
    Ok(Reply::empty())
}

/// Runs a script in a shell and returns its output.
fn shell(script: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    Ok(Command::new("/bin/sh").args(["-c", script]).output()?.stdout)
}
