//! One plugin for each way to misbehave, with the message that the host's user reads and the state
//! of the connection afterwards.
//!
//! The table is in docs/limits.md too, which is compared with this one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pipeplug_host::{CallError, Grace, Plugin, PluginBuilder};
use pipeplug_tests::SOON;

use crate::misbehave;

/// Time limit for calls and starts that never succeed.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Program that is started.
#[derive(Debug, Clone, Copy)]
enum What {
    /// `misbehave`, with these arguments.
    Way(&'static [&'static str]),
    /// A program that is no plugin, on stdin and stdout.
    Program(&'static [&'static str]),
}

use What::{Program, Way};

/// Expected result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The start fails, and nothing is left of the plugin.
    NoStart,
    /// The connection ends, with all its calls.
    Ended,
    /// The call fails, the connection goes on.
    CallFails,
    /// The call is answered, the connection goes on.
    Answered,
}

/// A way to misbehave, its description, the first line of the message (`…` for any text), and the
/// result.
type Row = (What, &'static str, &'static str, End);

const TABLE: &[Row] = &[
    // Before the first answer.
    (
        Program(&["/bin/true"]),
        "is not a plugin, and exits",
        "plugin \"/bin/true\" ended before it answered: exit status 0 after …, nothing on its \
         stderr; is it a plugin?",
        End::NoStart,
    ),
    (
        Program(&["/bin/cat"]),
        "is not a plugin, and copies its input to its output",
        "plugin \"/bin/cat\" sent the host's own first request back: it copies its input to its \
         output; is it a plugin?",
        End::NoStart,
    ),
    (
        Program(&["/bin/sh"]),
        "is not a plugin, and runs its input as commands",
        "plugin \"/bin/sh\" did not answer GetMetadata within 300ms…; is it a plugin? A slow one \
         needs more time: `--timeout` (PluginBuilder::handshake_timeout)",
        End::NoStart,
    ),
    (
        Program(&["/bin/sh", "-c", "yes"]),
        "is not a plugin, and prints lines without end",
        "plugin \"/bin/sh\" wrote what is no message: \"y\\ny\\n…\" (broken chunk at byte 0 of the \
         stream, in its threadID: expected digits up to a NUL, found 0x79 ('y')), nothing on its \
         stderr; a plugin on stdin and stdout must print nothing of its own there",
        End::NoStart,
    ),
    (
        Program(&["/bin/sh", "-c", "cat /dev/zero"]),
        "is not a plugin, and writes zeros without end",
        "plugin \"/bin/sh\" wrote what is no message: \"\\x00\\x00…\" (broken chunk at byte 0 of \
         the stream, in its threadID: expected at least one digit, found NUL), nothing on its \
         stderr; a plugin on stdin and stdout must print nothing of its own there",
        End::NoStart,
    ),
    (
        Way(&["prints-first"]),
        "prints a line where its messages go",
        "plugin \"misbehave\" wrote what is no message: \"Listening on port 8080\\n\" (broken \
         chunk at byte 0 of the stream, in its threadID: expected digits up to a NUL, found 0x4c \
         ('L')), nothing on its stderr; a plugin on stdin and stdout must print nothing of its own \
         there",
        End::NoStart,
    ),
    (
        Way(&["answers-classic"]),
        "answers in the other format",
        "plugin \"misbehave\" was spoken to in the standard format and answers in the classic one: \
         set the format to classic (`--format classic`)",
        End::NoStart,
    ),
    (
        Way(&["answers-a-list"]),
        "gives metadata that is not an object",
        "plugin \"misbehave\" answered GetMetadata with what is no JSON object: \"[\\\"a\\\"]\" \
         (…)",
        End::NoStart,
    ),
    (
        Way(&["answers-much"]),
        "gives 2 MiB of metadata",
        "plugin \"misbehave\" answered GetMetadata with 2097152 bytes, the limit is 1048576: send \
         what is large as a reply to a call",
        End::NoStart,
    ),
    (
        Way(&["answers-nothing"]),
        "never answers",
        "plugin \"misbehave\" did not answer GetMetadata within 300ms, nothing on its stderr; is \
         it a plugin? A slow one needs more time: `--timeout` (PluginBuilder::handshake_timeout)",
        End::NoStart,
    ),
    (
        Way(&["answers-half"]),
        "stops in the middle of its answer",
        "plugin \"misbehave\" did not answer GetMetadata within 300ms, nothing on its stderr; is \
         it a plugin? A slow one needs more time: `--timeout` (PluginBuilder::handshake_timeout)",
        End::NoStart,
    ),
    (
        Way(&["trickles", "1000"]),
        "answers a byte a second",
        "plugin \"misbehave\" did not answer GetMetadata within 300ms, nothing on its stderr; is \
         it a plugin? A slow one needs more time: `--timeout` (PluginBuilder::handshake_timeout)",
        End::NoStart,
    ),
    // In place of a reply.
    (
        Way(&["declares-buffer"]),
        "declares a reply of 10¹⁸ bytes",
        "x: the reply was skipped: the buffer is 1000000000000000000 bytes long, the limit is \
         268435456",
        End::CallFails,
    ),
    (
        Way(&["declares-command"]),
        "declares a command of 10¹⁸ bytes",
        "x: no reply within 300ms",
        End::CallFails,
    ),
    (Way(&["never-reads"]), "never reads, nor answers", "x: no reply within 300ms", End::CallFails),
    (
        Way(&["number-too-large"]),
        "sends a number above 2⁶⁴−1",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its threadID: expected a number of at most 18446744073709551615, found the further digit \
         0x36 ('6'); the chunk begins with …",
        End::Ended,
    ),
    (
        Way(&["number-without-digits"]),
        "sends a number without digits",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its threadID: expected at least one digit, found NUL; the chunk begins \
         with \"\\x003\\x00\"",
        End::Ended,
    ),
    (
        Way(&["number-with-leading-zero"]),
        "sends a number with a leading zero",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its threadID: expected NUL behind a leading zero, found …; the chunk begins with …",
        End::Ended,
    ),
    (
        Way(&["number-with-sign"]),
        "sends a negative number",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its threadID: expected digits up to a NUL, found 0x2d ('-'); the chunk begins with …",
        End::Ended,
    ),
    (
        Way(&["command-without-end"]),
        "sends a command that is longer than announced",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its cmd: expected NUL behind the announced length, found 0x79 ('y'); the chunk begins \
         with …",
        End::Ended,
    ),
    (
        Way(&["command-not-utf8"]),
        "sends a command that is not UTF-8",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its cmd: expected UTF-8, found 0xff; the chunk begins with …",
        End::Ended,
    ),
    (
        Way(&["prints"]),
        "prints a line between two messages",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its threadID: expected digits up to a NUL, found 0x44 ('D'); the chunk begins \
         with \"Done!\\n\"",
        End::Ended,
    ),
    (
        Way(&["prints-json"]),
        "speaks another protocol",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its threadID: expected digits up to a NUL, found 0x7b ('{'); the chunk begins \
         with \"{\\\"id\\\":…,\\\"result\\\":[]}\\n\"",
        End::Ended,
    ),
    (
        Way(&["half-a-reply"]),
        "ends in the middle of a reply",
        "x: no reply, the other side broke the protocol: broken chunk at byte … of the stream, in \
         its buffer: expected 96 further bytes, found the end of the stream; the chunk begins with \
         …",
        End::Ended,
    ),
    (
        Way(&["answers-and-leaves"]),
        "exits once it has started",
        "x: no reply, misbehave has ended: exit status 0",
        End::Ended,
    ),
    (
        Way(&["closes-output"]),
        "closes its pipe and runs on",
        "x: no reply, the other side closed the pipe",
        End::Ended,
    ),
    (
        Way(&["error-much"]),
        "gives an error message of 10 MiB",
        "x: nnnnn…nnnn… (10485760 bytes in all)",
        End::CallFails,
    ),
    // Beside its replies.
    (Way(&["answers-twice"]), "answers each call twice", "once", End::Answered),
    (
        Way(&["answers-unasked"]),
        "answers a hundred calls that were never made",
        "asked",
        End::Answered,
    ),
    (Way(&["odd-directions"]), "sends chunks of unknown directions", "even", End::Answered),
    (
        Way(&["odd-notices"]),
        "gives credit for more than was sent, and tells the host to stop",
        "fine",
        End::Answered,
    ),
    // Without end.
    (
        Way(&["floods", "", "pings"]),
        "sends pings without end, and reads no answer",
        "x: no reply, the other side does not read: … bytes of answers wait for it, the limit is \
         16777216",
        End::Ended,
    ),
    (
        Way(&["floods", "", "unknown"]),
        "sends unknown requests without end, and reads no answer",
        "x: no reply, the other side does not read: … bytes of answers wait for it, the limit is \
         16777216",
        End::Ended,
    ),
    (
        Way(&["floods", "", "commands"]),
        "sends requests with commands over the limit without end, and reads no answer",
        "x: no reply, the other side does not read: … bytes of answers wait for it, the limit is \
         16777216",
        End::Ended,
    ),
    (
        Way(&["floods", "", "unasked"]),
        "sends responses without end to calls that were never made",
        "x: no reply within 300ms",
        End::CallFails,
    ),
    (
        Way(&["floods", "", "directions"]),
        "sends chunks that are skipped without end",
        "x: no reply within 300ms",
        End::CallFails,
    ),
    (
        Way(&["floods", "", "one-ways"]),
        "sends one-ways without end",
        "x: no reply within 300ms",
        End::CallFails,
    ),
    (
        Way(&["floods", "flow", "one-ways"]),
        "sends one-ways without end, having agreed not to",
        "x: no reply within 300ms",
        End::CallFails,
    ),
    (
        Way(&["line-without-end"]),
        "prints a line without end on stderr",
        "x: no reply within 300ms",
        End::CallFails,
    ),
    (
        Way(&["lines-without-end"]),
        "prints empty lines without end on stderr",
        "x: no reply within 300ms",
        End::CallFails,
    ),
];

impl What {
    fn builder(self) -> PluginBuilder {
        match self {
            Way(how) => misbehave(how),
            Program([program, args @ ..]) => Plugin::builder(program).args(args.iter()).stdio(),
            Program([]) => unreachable!("the table names programs"),
        }
    }

    fn name(self) -> String {
        match self {
            Way(how) | Program(how) => how
                .iter()
                .map(|word| if word.is_empty() { "''" } else { word })
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

/// True if the text matches the pattern, in which `…` stands for any text.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// The first line of the message, and the result.
fn try_out(what: What) -> (String, End) {
    // What never answers the first request is not waited for; what does has time.
    let timeout = if matches!(
        what,
        Way(["answers-nothing" | "answers-half" | "trickles", ..]) | Program(["/bin/sh"])
    ) {
        TIMEOUT
    } else {
        pipeplug_tests::LONG
    };
    let builder =
        what.builder().handshake_timeout(timeout).grace(Grace::each(Duration::from_millis(20)));
    let plugin = match builder.start() {
        Ok(plugin) => plugin,
        Err(error) => {
            let path = format!("{:?}", Path::new(crate::MISBEHAVE));
            return (error.to_string().replace(&path, "\"misbehave\""), End::NoStart);
        }
    };
    let never = matches!(
        what,
        Way(["never-reads" | "declares-command" | "line-without-end" | "lines-without-end", ..]
            | ["floods", _, "unasked" | "directions" | "one-ways"])
    );
    let called = match plugin.request("x", "").begin() {
        Ok(call) => call.wait_timeout(if never { TIMEOUT } else { pipeplug_tests::LONG }),
        Err(error) => Err(error),
    };
    let (text, end) = match called {
        Ok(reply) => (reply.into_text().unwrap(), End::Answered),
        Err(error @ CallError::Closed { .. }) => (error.to_string(), End::Ended),
        Err(error) => (error.to_string(), End::CallFails),
    };
    if end == End::Ended {
        assert!(plugin.connection().wait_ended(SOON).is_some(), "{what:?}");
    } else {
        assert!(
            plugin.connection().close_reason().is_none(),
            "{what:?}: {:?}",
            plugin.connection().close_reason()
        );
    }
    if end == End::Answered {
        assert!(plugin.call("again", "").is_ok(), "{what:?}");
    }
    plugin.stop().unwrap();
    (text.lines().next().unwrap_or_default().to_owned(), end)
}

#[test]
fn each_way_to_misbehave_is_told_for_what_it_is() {
    let mut wrong = String::new();
    for (what, _, reads, end) in TABLE {
        let (text, found) = try_out(*what);
        if !is_like(&text, reads) || found != *end {
            wrong +=
                &format!("{what:?}\nexpected: {reads}\nread:     {text}\n{end:?}, {found:?}\n\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The table as docs/limits.md has it.
fn in_markdown() -> String {
    let mut table =
        String::from("| plugin | behaviour | message | result |\n| --- | --- | --- | --- |\n");
    for (what, does, reads, end) in TABLE {
        let kind = if matches!(what, Way(_)) { "misbehave " } else { "" };
        let reads = if *end == End::Answered {
            "nothing: the call is answered".to_owned()
        } else {
            format!("`` {} ``", reads.replace('|', "\\|"))
        };
        let end = match end {
            End::NoStart => "it is killed; nothing is left",
            End::Ended => "its connection ends; its other calls fail with the same",
            End::CallFails => "the connection goes on",
            End::Answered => "the connection goes on; counted in `Stats`",
        };
        table += &format!("| `{kind}{}` | {does} | {reads} | {end} |\n", what.name());
    }
    table
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
    let text = fs::read_to_string(&file).unwrap();
    let (begin, end) = ("<!-- misbehaviours -->\n", "<!-- end of misbehaviours -->\n");
    let start = text.find(begin).unwrap() + begin.len();
    let stop = text.find(end).unwrap();
    let expected = in_markdown();
    if text[start..stop] == expected {
        return;
    }
    // Updates the table in the docs.
    if std::env::var_os("PIPEPLUG_WRITE_DOCS").is_some() {
        fs::write(&file, [&text[..start], &expected, &text[stop..]].concat()).unwrap();
        return;
    }
    panic!(
        "docs/limits.md has another table: run this test with PIPEPLUG_WRITE_DOCS=1\n{expected}"
    );
}
