//! Durations, ports and sizes on the command line.

use std::time::Duration;

/// Longest duration: sums of two times must not overflow the clock.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Parses a duration such as `500ms`, `2s`, `1.5m` or `1h`; a plain number counts seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}; write a time as 500ms, 2s, 1m or 1h")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "not a number; write a time as 500ms, 2s, 1m or 1h".to_owned())?;
    let duration = Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "longer than a year; leave the option out for no limit".to_owned())?;
    if duration.is_zero() {
        return Err("a time of 0 is not possible; leave the option out for the default".into());
    }
    Ok(duration)
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

/// Parses a size such as `4096`, `64K`, `16M` or `1G`, in bytes; K, M and G are powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return Err(format!("unknown unit {unit:?}; write a size as 4096, 64K, 16M or 1G")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "not a whole number; write a size as 4096, 64K, 16M or 1G".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "the size does not fit into 64 bits".to_owned())
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
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn an_invalid_time_is_an_error() {
        for (text, told) in [
            ("", "not a number"),
            ("s", "not a number"),
            ("-1s", "unknown unit \"-1s\""),
            ("1d", "unknown unit \"d\""),
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
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64K", 65536), ("16M", 16 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for (text, told) in [
            ("", "not a whole number"),
            ("1.5K", "not a whole number"),
            ("1k", "unit \"k\""),
            ("99999999999G", "64 bits"),
        ] {
            let error = parse_bytes(text).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
