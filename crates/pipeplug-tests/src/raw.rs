//! A guest that writes its bytes by hand: ways to break the protocol, or to strain it within the
//! rules.
//!
//! It speaks the standard format. Each way answers `GetMetadata` first, unless this answer is the
//! fault. Most faults come with the next request.

use std::fs::File;
use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use pipeplug_host::{Chunk, Direction, Format};

use pipeplug_testkit::chunk;

use crate::chunks::{one_way, read_chunk, request};

/// Length that a peer can declare but no system can allocate.
const HUGE: u64 = 1_000_000_000_000_000_000;

/// A guest's two descriptors.
struct Raw {
    input: File,
    output: File,
    /// The one that `output` was opened from.
    number: i32,
}

/// Misbehaves in the named way until the pipe is closed. `Ok(false)` if there is no such way.
///
/// `numbers` are those of the descriptors; without them they are standard input and output.
///
/// # Errors
/// If the host has closed the pipe, mostly.
pub fn misbehave_raw(how: &[&str], numbers: Option<[i32; 2]>) -> io::Result<bool> {
    let [input, output] = numbers.unwrap_or([0, 1]);
    let open = |number| format!("/proc/self/fd/{number}");
    let (number, output) = (output, File::options().append(true).open(open(output))?);
    Raw { input: File::open(open(input))?, output, number }.misbehave(how)
}

fn response(id: u64, command: &str, buffer: &[u8]) -> Vec<u8> {
    chunk(Format::Standard, id, Direction::Response, command, buffer)
}

impl Raw {
    fn misbehave(&mut self, how: &[&str]) -> io::Result<bool> {
        match how {
            // At the first request.
            ["prints-first"] => self.answers_with(b"Listening on port 8080\n"),
            ["answers-classic"] => self.answers_with(b"1\x003\0GetMetadata 2\0{}"),
            ["answers-a-list"] => self.answers_with(&response(1, "GetMetadata", b"[\"a\"]")),
            ["answers-much"] => {
                self.answers_with(&response(1, "GetMetadata", &vec![b' '; 2 << 20]))
            }
            ["answers-nothing"] => self.answers_with(b""),
            ["answers-half"] => self.answers_with(b"1\x003\x0011\0GetMeta"),
            ["answers-and-leaves"] => {
                self.start("")?;
                Ok(true)
            }
            ["trickles", millis] => {
                self.next();
                let pause = Duration::from_millis(millis.parse().unwrap_or(1000));
                for byte in response(1, "GetMetadata", b"{}") {
                    thread::sleep(pause);
                    self.send(&[byte])?;
                }
                self.stay()
            }

            // In place of a reply.
            ["declares-buffer"] => {
                self.replies(|id| format!("{id}\x003\x001\0x\0{HUGE}\0some").into())
            }
            ["declares-command"] => self.replies(|id| format!("{id}\x003\0{HUGE}\0some").into()),
            ["number-too-large"] => self.replies(|_| b"18446744073709551616\0".to_vec()),
            ["number-without-digits"] => self.replies(|_| b"\x003\0".to_vec()),
            ["number-with-leading-zero"] => self.replies(|id| format!("0{id}\x003\0").into()),
            ["number-with-sign"] => self.replies(|id| format!("-{id}\x003\0").into()),
            ["command-without-end"] => self.replies(|id| format!("{id}\x003\x001\0xy").into()),
            ["command-not-utf8"] => {
                self.replies(|id| [format!("{id}\x003\x001\0").as_bytes(), b"\xff\0"].concat())
            }
            ["prints"] => self.replies(|_| b"Done!\n".to_vec()),
            ["prints-json"] => self.replies(|id| format!("{{\"id\":{id},\"result\":[]}}\n").into()),
            ["error-much"] => self.replies(|id| response(id, "cmd.error", &vec![b'n'; 10 << 20])),
            ["half-a-reply"] => {
                self.start("")?;
                let asked = self.asked();
                self.send(format!("{}\x003\x001\0x\x00100\0half", asked.thread_id).as_bytes())?;
                Ok(true)
            }
            ["closes-output"] => {
                self.start("")?;
                self.asked();
                self.output = File::options().write(true).open("/dev/null")?;
                nix::unistd::close(self.number)?;
                self.stay()
            }
            // Beside what it is asked for.
            ["answers-twice"] => self.replies_always(|id| response(id, "x", b"once").repeat(2)),
            ["answers-unasked"] => self.replies_always(|id| {
                let unasked: Vec<u8> =
                    (1000..1100).flat_map(|other| response(other, "x", b"not asked")).collect();
                [unasked, response(id, "x", b"asked")].concat()
            }),
            ["odd-directions"] => self.replies_always(|id| {
                let odd = b"1\x000\x001\0x\x000\x001\x0099\x001\0x\x003\0abc".to_vec();
                [odd, response(id, "x", b"even")].concat()
            }),
            ["odd-notices"] => self.replies_always(|id| {
                let credit = [&b"18446744073709551615"[..], b"-1", b"much"]
                    .map(|total| one_way("cmd.credit", total));
                let stop = [one_way("cmd.stop", b""), one_way("cmd.unheard-of", b"")].concat();
                [credit.concat(), stop, response(id, "x", b"fine")].concat()
            }),

            // Without end.
            ["floods", features, what, ..] => {
                self.start(features)?;
                self.asked();
                self.floods(what)
            }
            // It reads nothing more.
            ["never-reads"] => {
                self.start("")?;
                thread::sleep(Duration::from_secs(3600));
                Ok(true)
            }
            // It reads what it is answered, so that only the requests are many.
            ["asks", count] => {
                self.start("")?;
                let asked = self.asked().thread_id.as_u64();
                let count = count.parse().unwrap_or(1);
                let mut input = self.input.try_clone()?;
                let reading = thread::spawn(move || {
                    // What it reads it does not look at: read a byte at a time it would take far
                    // longer.
                    io::copy(&mut input, &mut io::sink())
                });
                for id in 1..=count {
                    self.send(&request(id, "ask", b""))?;
                }
                self.send(&response(asked, "x", b"asked"))?;
                // Until the host closes the pipe.
                let _ = reading.join();
                Ok(true)
            }
            ["line-without-end"] => {
                self.start("")?;
                self.asked();
                let piece = [b'x'; 64 << 10];
                loop {
                    io::stderr().write_all(&piece)?;
                }
            }
            ["lines-without-end"] => {
                self.start("")?;
                self.asked();
                let piece = b"\n".repeat(64 << 10);
                loop {
                    io::stderr().write_all(&piece)?;
                }
            }
            _ => Ok(false),
        }
    }

    fn floods(&mut self, what: &str) -> io::Result<bool> {
        let flood = match what {
            "one-ways" => one_way("tick", &[b'.'; 100]),
            "empty-one-ways" => one_way("t", b""),
            "requests" => request(1, "ask", &[b'.'; 100]),
            "pings" => request(1, "cmd.ping", b""),
            "unknown" => request(1, "cmd.unheard-of", b""),
            "unasked" => response(u64::MAX, "x", b"not asked"),
            "directions" => b"1\x007\x001\0x\x000\0".to_vec(),
            "stops" => one_way("cmd.stop", b""),
            "credits" => one_way("cmd.credit", b"18446744073709551615"),
            "cancels" => chunk(Format::Standard, 1, Direction::OneWay, "cmd.cancel", b""),
            "contexts" => {
                chunk(Format::Standard, 1, Direction::OneWay, "cmd.context", b"{\"deadline\":")
            }
            // Over the limit of the command, so that each is refused.
            "commands" => request(1, &"c".repeat(100 << 10), b""),
            // As large as may be, so that 63 KiB of command come back in no answer.
            "long-commands" => request(1, &"\u{1}".repeat(63 << 10), b""),
            other => return Err(io::Error::other(format!("no such flood: {other}"))),
        };
        let flood = flood.repeat((64_usize << 10).div_ceil(flood.len()));
        loop {
            self.send(&flood)?;
        }
    }

    /// Answers the first request, naming these features.
    fn start(&mut self, features: &str) -> io::Result<()> {
        let first = self.next();
        let id = first.map_or(1, |first| first.thread_id.as_u64());
        let metadata = format!("{{\"pipeplug.features\":\"{features}\"}}");
        self.send(&response(id, "GetMetadata", metadata.as_bytes()))
    }

    /// Gives this as its first answer.
    fn answers_with(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.next();
        self.send(bytes)?;
        self.stay()
    }

    /// Gives this as the answer to the first call.
    fn replies(&mut self, reply: impl Fn(u64) -> Vec<u8>) -> io::Result<bool> {
        self.start("")?;
        let asked = self.asked();
        self.send(&reply(asked.thread_id.as_u64()))?;
        self.stay()
    }

    /// Gives this as the answer to each call, until it is told to stop.
    fn replies_always(&mut self, reply: impl Fn(u64) -> Vec<u8>) -> io::Result<bool> {
        self.start("")?;
        while let Some(asked) = self.next() {
            match (asked.direction, asked.command.as_str()) {
                (Direction::Request, _) => self.send(&reply(asked.thread_id.as_u64()))?,
                (Direction::OneWay, "cmd.stop") => break,
                (Direction::OneWay | Direction::Response, _) => {}
            }
        }
        Ok(true)
    }

    /// The next request.
    fn asked(&mut self) -> Chunk {
        loop {
            match self.next() {
                Some(asked) if asked.direction == Direction::Request => return asked,
                Some(_) => {}
                None => std::process::exit(1),
            }
        }
    }

    fn next(&mut self) -> Option<Chunk> {
        read_chunk(Format::Standard, &mut self.input)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)
    }

    /// Is there until the host closes the pipe.
    fn stay(&mut self) -> io::Result<bool> {
        io::copy(&mut self.input, &mut io::sink())?;
        Ok(true)
    }
}
