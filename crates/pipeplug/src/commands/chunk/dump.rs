//! Report of a stream that breaks: offset, field, and the bytes around it.

use std::fmt::Write as _;

use pipeplug_wire::DecodeErrorKind;

use super::stream::Break;
use crate::exit::{CommandError, ExitReason};

/// Bytes in a row, as hexdump(1) has them.
const ROW: u64 = 16;
/// Rows that are shown before the row with the break, and after it.
const ROWS_AROUND: u64 = 3;

/// Makes the error of a broken stream.
pub(super) fn error(broken: &Break<'_>) -> CommandError {
    let Break { error, count, .. } = broken;
    let next_step = match (error.other_format().filter(|_| *count == 0), error.kind) {
        (Some(format), _) => format!("if this is the {format} format use --format {format}"),
        (None, DecodeErrorKind::UnexpectedEnd { .. }) => {
            "its writer ended, or closed its pipe, before it had written all".to_owned()
        }
        (None, _) if *count == 0 => "is this the start of a stream of chunks?".to_owned(),
        (None, _) => "the reason may be a wrong length in the chunk before, or text that was \
                      printed between two chunks"
            .to_owned(),
    };
    CommandError::message(ExitReason::Broken, format!("{error}; {next_step}"))
}

/// Shows the chunk with the break.
pub(super) fn text(broken: &Break<'_>) -> String {
    let Break { error, start, count, .. } = broken;
    let which = match error.kind {
        DecodeErrorKind::UnexpectedEnd { .. } => "what there is of it",
        _ => "the bytes around the break",
    };
    format!("chunk {} begins at byte {start}; {which}:\n{}", count + 1, rows(broken))
}

/// Rows of bytes around the break, with a mark below the byte that is wrong.
fn rows(broken: &Break<'_>) -> String {
    let Break { error, bytes, bytes_at, .. } = broken;
    let row_of = |offset: u64| offset.saturating_sub(*bytes_at) / ROW;
    let wrong = row_of(error.offset);
    let mut text = String::new();
    if wrong > ROWS_AROUND {
        let _ = writeln!(text, "  … {} bytes", (wrong - ROWS_AROUND) * ROW);
    }
    for (row, content) in (0_u64..).zip(bytes.chunks(ROW as usize)) {
        if row + ROWS_AROUND < wrong || row > wrong + ROWS_AROUND {
            continue;
        }
        // Writing to a String does not fail.
        let _ = write!(text, "  {:08x} ", bytes_at + row * ROW);
        for at in 0..ROW as usize {
            let gap = if at == ROW as usize / 2 { " " } else { "" };
            let _ = match content.get(at) {
                Some(byte) => write!(text, "{gap} {byte:02x}"),
                None => write!(text, "{gap}   "),
            };
        }
        let shown: String = content
            .iter()
            .map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        let _ = writeln!(text, "  |{shown}|");
        if row == wrong {
            mark(&mut text, error.offset - bytes_at - row * ROW);
        }
    }
    // A stream that ends between two rows has its end in a row of its own.
    if wrong * ROW >= bytes.len() as u64 {
        let _ = writeln!(text, "  {:08x}", bytes_at + bytes.len() as u64);
        mark(&mut text, 0);
    }
    let shown = (wrong + ROWS_AROUND + 1) * ROW;
    if let Some(more) = (bytes.len() as u64).checked_sub(shown).filter(|more| *more > 0) {
        let _ = writeln!(text, "  … {more} bytes have been read behind these");
    }
    text
}

fn mark(text: &mut String, column: u64) {
    let gap = if column >= ROW / 2 { 1 } else { 0 };
    let width = usize::try_from(12 + column * 3 + gap).unwrap_or(0);
    let _ = writeln!(text, "{:width$}^^", "");
}
