//! The table on the terminal.

use crate::figures::Document;

/// Columns of each subject: a heading, and the row that the value is taken from.
const COLUMNS: [(&str, &str, &str, u64); 12] = [
    ("split p50 µs", "sequential.p50", "split", 64),
    ("CPU µs", "sequential.cpu", "split", 64),
    ("free p50 µs", "sequential.p50", "free", 64),
    ("same p50 µs", "sequential.p50", "same", 64),
    ("busy p50 µs", "sequential.p50", "busy", 64),
    ("64 callers/s", "callers.rate", "free", 64),
    ("64 tasks/s", "tasks.rate", "free", 64),
    ("10k flight/s", "flight.rate", "free", 10_000),
    ("10k stream/s", "stream.rate", "free", 10_000),
    ("one-ways/s", "oneway.rate", "free", 64),
    ("64 MiB GB/s", "bulk.rate", "free", 64 << 20),
    ("spawn µs", "spawn.p50", "free", 64),
];

/// Prints the medians of what nearly every subject has.
pub(crate) fn table(document: &Document) {
    print!("\n{:<18}", "");
    COLUMNS.iter().for_each(|(heading, ..)| print!("{heading:>13}"));
    println!();
    for subject in document.subjects() {
        print!("{subject:<18}");
        for (_, metric, situation, parameter) in COLUMNS {
            let row = document.row(subject, metric, situation, parameter);
            let shown = row.map_or("", |row| if row.error.is_some() { "failed" } else { "" });
            let shown = row.and_then(|row| row.median).map_or_else(|| shown.to_owned(), short);
            print!("{shown:>13}");
        }
        println!();
    }
    for absent in &document.absent {
        println!("{}: not measured, {}", absent.subject, absent.why);
    }
    for row in document.rows.iter().filter(|row| row.error.is_some()) {
        let error = row.error.as_deref().unwrap_or_default();
        println!("{} {} {} {}: {error}", row.subject, row.metric, row.situation, row.parameter);
    }
}

/// Three digits that count.
pub(crate) fn short(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        size if size >= 999.5e3 => (value / 1e6, "M"),
        size if size >= 9995.0 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        size if size >= 99.95 || (suffix.is_empty() && size.fract() == 0.0) => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_shown() {
        for (value, shown) in [
            (0.0, "0"),
            (2.0, "2"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (5432.1, "5432"),
            (54_321.0, "54.3k"),
            (999_600.0, "1.00M"),
            (16_200_000.0, "16.2M"),
        ] {
            assert_eq!(short(value), shown);
        }
    }
}
