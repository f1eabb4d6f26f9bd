//! Durations, ports and sizes on the command line.

use std::str::FromStr;
use std::time::Duration;

/// Longest duration: sums of two times must not overflow the clock.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Parses a duration such as `500ms`, `2s`, `1.5m`, `1h` or `1m30s`; a plain number counts seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "write a time as 500ms, 2s, 1m30s or 1h";
    let mut seconds = 0.0;
    let mut rest = text;
    loop {
        let (number, more) = split(rest);
        let end = more.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(more.len());
        let (unit, more) = more.split_at(end);
        let factor = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            // Behind another unit, a number without one is most likely a slip.
            _ if number.is_empty() && seconds == 0.0 => {
                return Err(format!("not a time; {EXAMPLES}"));
            }
            "" if number.len() == text.len() => 1.0,
            "" => return Err(format!("{number:?} has no unit; {EXAMPLES}")),
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 24.0 * 3600.0,
            _ => return Err(format!("unknown unit {unit:?}; {EXAMPLES}")),
        };
        let number: f64 = number.parse().map_err(|_| format!("not a number; {EXAMPLES}"))?;
        seconds += number * factor;
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    let duration = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "longer than a year; leave the option out for no limit".to_owned())?;
    if duration.is_zero() {
        return Err("a time of 0 is not possible; leave the option out for the default".into());
    }
    Ok(duration)
}

/// Parses a number of things, of which there is at least one.
pub(crate) fn parse_count<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| *number >= T::from(1));
    number.ok_or_else(|| "not a number from 1 on; write one as in 100".to_owned())
}

/// Parses a TCP port.
pub(crate) fn parse_port(text: &str) -> Result<u16, String> {
    if let Ok(port) = text.parse() {
        return Ok(port);
    }
    // An address such as localhost:80 or [::1]:80. An IPv6 address without a port ends in digits
    // too, but has more colons.
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    match port.parse::<u16>() {
        Ok(port) if !host.contains(':') || host.ends_with(']') => Err(format!(
            "the kernel limits TCP by port and not by address: write the port alone, {port}, which \
             allows it at every address"
        )),
        _ => Err("not a port; write a number from 0 to 65535, as in 80".to_owned()),
    }
}

/// Parses a size such as `4096`, `64K`, `1.5M` or `4MiB`, in bytes; k, M and G are powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    const EXAMPLES: &str = "write a size as 4096, 64K, 1.5M or 4MiB, in powers of 1024";
    let (number, unit) = split(text);
    let bits = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "ki" | "kib" => 10,
        "m" | "mi" | "mib" => 20,
        "g" | "gi" | "gib" => 30,
        "t" | "ti" | "tib" => 40,
        _ if number.is_empty() => return Err(format!("not a size; {EXAMPLES}")),
        _ => return Err(format!("unknown unit {unit:?}; {EXAMPLES}")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let wrong = || format!("not a number of bytes; {EXAMPLES}");
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    // Parts of a byte are left out.
    let fraction: f64 = format!("0.{fraction}").parse().map_err(|_| wrong())?;
    let fraction = (fraction * (1_u64 << bits) as f64) as u64;
    let bytes = whole.checked_mul(1 << bits).and_then(|bytes| bytes.checked_add(fraction));
    bytes.ok_or_else(|| "the size does not fit into 64 bits".to_owned())
}

/// Splits text into a number and its unit.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("2s", 2000),
            ("2", 2000),
            ("1m", 60_000),
            ("1h", 3_600_000),
            ("1.5s", 1500),
            (".5", 500),
            ("1m30s", 90_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("1s500ms", 1500),
            ("2000us", 2),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn an_invalid_time_is_an_error() {
        for (text, told) in [
            ("", "not a time"),
            ("soon", "not a time; write a time as 500ms"),
            ("s", "not a number"),
            ("-1s", "not a time"),
            ("1w", "unknown unit \"w\""),
            ("1m30", "\"30\" has no unit"),
            ("1ms-2s", "unknown unit \"ms-\""),
            ("1 s", "unknown unit \" s\""),
            ("1.2.3", "not a number"),
            ("0", "a time of 0"),
            ("9999h", "longer than"),
            ("99999999999999999999999", "longer than"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_count_is_at_least_one() {
        assert_eq!(parse_count::<u32>("1"), Ok(1));
        for text in ["0", "-1", "", "4294967296", "two"] {
            assert!(parse_count::<u32>(text).unwrap_err().contains("from 1 on"), "{text}");
        }
    }

    #[test]
    fn an_address_names_the_port_to_write() {
        assert_eq!(parse_port("80"), Ok(80));
        for address in ["localhost:80", "127.0.0.1:80", "[::1]:80", ":80"] {
            let error = parse_port(address).unwrap_err();
            assert!(error.contains("write the port alone, 80, which"), "{address}: {error}");
        }
        for other in ["", "localhost", "99999", "localhost:http", "::1", "-1", "localhost:99999"] {
            assert!(parse_port(other).unwrap_err().contains("from 0 to 65535"), "{other}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("64K", 65536),
            ("1k", 1024),
            ("1.5k", 1536),
            ("16M", 16 << 20),
            ("4MiB", 4 << 20),
            ("1GiB", 1 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for (text, told) in [
            ("", "not a number of bytes"),
            (".5K", "not a number of bytes"),
            ("1.2.3K", "not a number of bytes"),
            ("1kB", "unit \"kB\""),
            ("-1", "not a size"),
            ("99999999999G", "64 bits"),
        ] {
            let error = parse_bytes(text).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
