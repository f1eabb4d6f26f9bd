//! Figures of a run, as they are written to JSON and read from it.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Version};
use crate::stats::{median, spread};

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// The command that ran.
    pub(crate) command: String,
    /// When it began, in seconds since 1970.
    pub(crate) began: u64,
    /// How long it took, in seconds.
    pub(crate) took: u64,
    pub(crate) rounds: u32,
    pub(crate) seed: u64,
    pub(crate) machine: Machine,
    pub(crate) versions: Vec<Version>,
    /// Descriptions of the peers.
    #[serde(default)]
    pub(crate) peers: Vec<About>,
    /// Subjects that could not be measured at all.
    pub(crate) absent: Vec<Absent>,
    pub(crate) rows: Vec<Row>,
}

/// A subject that could not be measured, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Absent {
    pub(crate) subject: String,
    pub(crate) why: String,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) subject: String,
    pub(crate) what: String,
    pub(crate) version: String,
}

/// One figure of one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) subject: String,
    /// Work that was done and which figure of it: `sequential.p50`.
    pub(crate) metric: String,
    /// Where the processes ran: `free`, `split`, `same` or `busy`.
    pub(crate) situation: String,
    /// Quantity that the metric grows with: a size in bytes, callers, calls in flight.
    pub(crate) parameter: u64,
    pub(crate) unit: String,
    /// One for each round that brought one.
    pub(crate) values: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) median: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<f64>,
    /// Why rounds are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Row {
    /// Takes one more round's value in.
    pub(crate) fn add(&mut self, value: f64) {
        self.values.push(value);
        self.median = median(&self.values);
        (self.min, self.max) = spread(&self.values).unzip();
    }
}

impl Document {
    pub(crate) fn to_json(&self) -> Result<String> {
        // A row a line: a diff of two runs shows what changed.
        let head = serde_json::to_string_pretty(&Self { rows: Vec::new(), ..self.clone() })?;
        let rows: Vec<String> =
            self.rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let rows = format!("\"rows\": [\n{}\n  ]", rows.join(",\n"));
        Ok(head.replace("\"rows\": []", &rows) + "\n")
    }

    pub(crate) fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("this is not what `pipeplug-bench run --out` writes")
    }

    /// The names of those that have rows, in the rows' order.
    pub(crate) fn subjects(&self) -> Vec<&str> {
        let mut subjects: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !subjects.contains(&row.subject.as_str()) {
                subjects.push(&row.subject);
            }
        }
        subjects
    }

    /// The row of these four; `None` where nothing was measured.
    pub(crate) fn row(
        &self,
        subject: &str,
        metric: &str,
        situation: &str,
        parameter: u64,
    ) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.subject == subject
                && row.metric == metric
                && row.situation == situation
                && row.parameter == parameter
        })
    }
}

/// A document to test with.
#[cfg(test)]
pub(crate) fn sample(rows: &[(&str, &str, &str, u64, &[f64])]) -> Document {
    let rows = rows.iter().map(|(subject, metric, situation, parameter, values)| {
        let mut row = Row {
            subject: (*subject).into(),
            metric: (*metric).into(),
            situation: (*situation).into(),
            parameter: *parameter,
            unit: "µs".into(),
            values: Vec::new(),
            median: None,
            min: None,
            max: None,
            error: None,
        };
        values.iter().for_each(|value| row.add(*value));
        row
    });
    Document {
        command: "pipeplug-bench".into(),
        began: 0,
        took: 1,
        rounds: 1,
        seed: 1,
        machine: Machine::default(),
        versions: Vec::new(),
        peers: Vec::new(),
        absent: Vec::new(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let document = sample(&[
            ("pipeplug", "sequential.p50", "free", 64, &[2.0, 1.0, 4.0]),
            ("raw-block", "spawn.p50", "free", 64, &[]),
        ]);
        let read = Document::from_json(&document.to_json().unwrap()).unwrap();
        assert_eq!(read, document);
        let row = read.row("pipeplug", "sequential.p50", "free", 64).unwrap();
        assert_eq!((row.median, row.min, row.max), (Some(2.0), Some(1.0), Some(4.0)));
        assert_eq!(read.row("pipeplug", "sequential.p50", "same", 64), None);
    }

    #[test]
    fn what_is_no_run_is_an_error_that_says_so() {
        let error = Document::from_json("{}").unwrap_err().to_string();
        assert!(error.contains("run --out"), "{error}");
    }
}
