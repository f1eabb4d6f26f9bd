//! Description of the machine and its tools.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// The machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// How many this process may use.
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) virtualised: bool,
    /// Per cent of the CPUs' time that the hypervisor gave to others during the run.
    pub(crate) stolen: f64,
}

/// Something with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field =
            |name: &str| cpuinfo.lines().find(|line| line.starts_with(name)).and_then(value_of);
        let is_virtual =
            field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
        let memory = read("/proc/meminfo");
        let total = memory.lines().next().and_then(value_of).unwrap_or_default();
        let kib: u64 = total.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            virtualised: is_virtual,
            stolen: 0.0,
        }
    }
}

/// Versions of the tools that are here, as they print them.
pub(crate) fn tools() -> Vec<Version> {
    let asked = [("rustc", "--version"), ("go", "version"), ("node", "--version")];
    let version = |(name, arg): (&str, &str)| {
        let output = Command::new(name).arg(arg).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        // `rustc 1.2.3 (…)`, `go version go1.2.3 …`, `v1.2.3`
        let version = text.trim().trim_start_matches(name).trim_start_matches(" version").trim();
        let version = version.trim_start_matches(name).trim_start_matches('v');
        Some(Version { name: name.into(), version: version.into() })
    };
    asked.into_iter().filter_map(version).collect()
}

/// Ticks of all CPUs since the start of the machine, and those that the hypervisor gave to others
/// (proc_stat(5)).
pub(crate) fn ticks() -> (u64, u64) {
    const STEAL: usize = 7;
    let stat = read("/proc/stat");
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // Guests' time is counted in the first two, too.
    let ticks: Vec<u64> = fields.take(STEAL + 1).map(|ticks| ticks.parse().unwrap_or(0)).collect();
    (ticks.iter().sum(), ticks.get(STEAL).copied().unwrap_or(0))
}

fn value_of(line: &str) -> Option<String> {
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// Empty where there is no such file: a machine that does not tell is no reason not to measure.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
