//! Signs of a terminal between host and plugin, which echoes what goes in and changes what comes
//! out.

/// A complaint of `docker exec -it` and `podman exec -it`.
const NO_TTY: &str = "input device is not a TTY";

/// Words of a pipeplug plugin that finds no pipes.
const BY_HAND: &[u8] = b"is a plugin: a host starts it";

/// Tells whether the first bytes came through a terminal. They then contain an echo of the host's
/// own chunk, with NUL shown as `^@`, or the words of a plugin that was started by hand.
pub(crate) fn shows_in(first: &[u8]) -> bool {
    is_echo(first) || contains(first, BY_HAND)
}

/// Tells whether every line ends in CR LF, which a terminal writes and programs do not.
pub(crate) fn ends_lines_of(first: &[u8]) -> bool {
    let mut ends = first.iter().enumerate().filter(|(_, byte)| **byte == b'\n').peekable();
    ends.peek().is_some() && ends.all(|(at, _)| at > 0 && first[at - 1] == b'\r')
}

/// The line of standard error that says that there is no terminal where one was asked for.
pub(crate) fn missed_in(stderr: &[String]) -> Option<&str> {
    stderr.iter().find(|line| line.contains(NO_TTY)).map(String::as_str)
}

/// Finds a thread id and a direction in front of `^@` each, as both formats begin.
fn is_echo(first: &[u8]) -> bool {
    let fields: Vec<_> = first.split(|byte| *byte == b'^').collect();
    let digits = |field: &[u8]| field.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    fields.windows(3).any(|fields| {
        // `…1`, `@2`, `@…`: what stands before the first one may be anything.
        let [id, direction, rest] = fields else { return false };
        digits(id) > 0
            && direction.len() == 2
            && direction[0] == b'@'
            && digits(direction) == 1
            && rest.starts_with(b"@")
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_known_in_both_formats() {
        assert!(shows_in(b"1^@2^@11^@GetMetadata^@95^@{\"pipeplug.features\":\"flow context ca"));
        assert!(shows_in(b"1^@2^@GetMetadata 95^@{\"pipeplug.features\":\"flow context cancel\""));
        assert!(shows_in(b"Welcome!\r\n1^@2^@11^@Get"));
        for other in [
            &b"1\x002\x0011\0GetMetadata\0"[..],
            b"Hello, world!\n",
            b"a^@b^@c",
            b"2^@",
            b"7^@12^@x",
            b"",
        ] {
            assert!(!shows_in(other), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn what_is_for_those_who_start_it_by_hand_is_known() {
        assert!(shows_in(b"captive is a plugin: a host starts it and talks to it over pipes"));
        assert!(!shows_in(b"is it a plugin?"));
    }

    #[test]
    fn ends_of_lines_are_all_a_terminals_or_none() {
        assert!(ends_lines_of(b"ready\r\ngo\r\n"));
        for other in [&b"ready\n"[..], b"ready\r\ngo\n", b"\n", b"ready\r", b"ready"] {
            assert!(!ends_lines_of(other), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn a_missing_terminal_is_known() {
        let podman = r#"time="…" level=warning msg="The input device is not a TTY. The --tty and --interactive flags might not work properly""#;
        for line in ["the input device is not a TTY", podman] {
            assert_eq!(missed_in(&["a".to_owned(), line.to_owned()]), Some(line));
        }
        assert_eq!(missed_in(&["is not a TTY".to_owned()]), None);
    }
}
