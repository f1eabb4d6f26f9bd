//! `pipeplug chunk`: converts between JSON lines and the bytes of the protocol.

mod decode;
mod dump;
mod encode;
mod line;
mod pipes;
mod stream;
#[cfg(test)]
mod tests;

use clap::{Args, Subcommand, ValueEnum};
use pipeplug_host::{Format, Limits};

use self::line::Content;
use crate::args::units::parse_bytes;
use crate::cli::Globals;
use crate::exit::ExitReason;
use crate::output::report;

const EXAMPLES: &str = "\
Examples:
  echo '{\"command\":\"echo\",\"text\":\"hello\"}' | pipeplug chunk encode | hexdump -C
  pipeplug chunk decode <dump.bin
  pipeplug chunk decode <dump.bin | jq -r .command
  pipeplug chunk decode | ./answer.sh | pipeplug chunk encode";

const LINES: &str = "\
A line is a JSON object with these fields:
  id         number of the request, 0 to 2^64-1; above 2^53 in quotes
             [default: 0 for a one-way, else counted from 1; a response needs it]
  direction  request, response, one-way, or a reserved number: 0, or 4 and above
             [default: request]
  command    name of the command, as in \"echo\"
  text       the buffer as text, or
  base64     as Base64 (decode writes it for bytes that are not UTF-8, and for
             all with --base64), or
  json       as any JSON value, for encode only [default: no bytes]
With decode --details also, which encode takes as well:
  offset     position of the chunk in the stream, in bytes
  bytes      size of the chunk in the stream
  format     standard or classic
A chunk over a limit is a line with `skipped` (why), `command_bytes` and
`buffer_bytes`.";

const STATUSES: &str = "\
Exit status:
  0    success; also if the reader of stdout has ended
  1    stdin cannot be read, or stdout cannot be written
  2    the command line is wrong
  6    encode: a line is no chunk; decode: the stream is broken, or ends inside
       a chunk. All that came before was written";

/// Convert between JSON lines and chunks, the bytes that a host and a plugin exchange
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{LINES}\n\n{EXAMPLES}\n\n{STATUSES}"))]
pub(crate) struct ChunkArgs {
    #[command(subcommand)]
    command: ChunkCommand,
}

#[derive(Debug, Subcommand)]
enum ChunkCommand {
    Encode(EncodeArgs),
    Decode(DecodeArgs),
}

/// Read JSON lines on stdin, and write their chunks to stdout, each as soon as its line is read
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{LINES}\n\n{EXAMPLES}\n\n{STATUSES}"))]
struct EncodeArgs {
    /// Format of the chunks; auto takes that of the first line that names one, else standard
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: ChunkFormat,
}

/// Read chunks on stdin, and write them to stdout as JSON lines, each as soon as it is whole
///
/// A stream that breaks ends with an error on stderr: the offset, the field, what was expected and
/// found, and the bytes around it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{LINES}\n\n{EXAMPLES}\n\n{STATUSES}"))]
struct DecodeArgs {
    /// Format of the chunks; auto recognises it by the first chunk
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: ChunkFormat,

    /// Add offset, bytes and format to each line
    #[arg(long)]
    details: bool,

    /// Write every buffer as Base64, for scripts without a JSON library
    #[arg(long)]
    base64: bool,

    /// Limit of the buffer of a chunk, as 64K or 1G; a larger one is skipped [default: 256M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    limit_buffer: Option<u64>,
}

/// Format of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChunkFormat {
    Standard,
    Classic,
    Auto,
}

impl ChunkFormat {
    /// The format. `None` if the stream tells it.
    fn named(self) -> Option<Format> {
        match self {
            Self::Standard => Some(Format::Standard),
            Self::Classic => Some(Format::Classic),
            Self::Auto => None,
        }
    }
}

/// Runs `pipeplug chunk`.
///
/// # Blocking
/// Until stdin ends, or the reader of stdout is gone.
pub(crate) fn run(args: &ChunkArgs, globals: &Globals) -> ExitReason {
    let args = match &args.command {
        ChunkCommand::Encode(args) => {
            let result = encode::run(args.format.named());
            return report::exit_reason(globals.color, result.map(|()| ExitReason::Success));
        }
        ChunkCommand::Decode(args) => args,
    };
    let limits = Limits::default();
    let limits = args.limit_buffer.map_or(limits, |bytes| limits.with_buffer(bytes));
    let content = if args.base64 { Content::Base64 } else { Content::Text };
    match decode::run(args.format.named(), limits, content, args.details) {
        Ok(()) => ExitReason::Success,
        Err(failure) => {
            let bytes = failure.bytes;
            let reason = report::exit_reason(globals.color, Err(*failure.error));
            decode::show(bytes.as_deref());
            reason
        }
    }
}
