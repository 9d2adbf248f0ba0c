//! What the system says of this machine and this process: read, not judged.
//!
//! Linux says it in files below `/proc` and `/sys`. What a board does not have is left out.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use eyas_shared::link::bench::{Facts, Moment};
use rustix::time::{ClockId, clock_gettime};

use crate::matcher::Kernel;
use crate::wire;

/// Steps of the fixed chain of arithmetic: about a millisecond at a gigahertz or two.
const PACE_STEPS: u64 = 1 << 19;

/// Runs of it, of which the shortest counts: one that is not interrupted.
const PACE_RUNS: usize = 7;

/// Longest file that is read here.
const MAX_BYTES: u64 = 1 << 20;

/// What this machine is.
#[must_use]
pub fn facts() -> Facts {
    let cpus = read("/proc/cpuinfo");
    let field = |names: &[&str]| {
        let found = names.iter().find_map(|name| value_of(&cpus, name));
        found.unwrap_or_default().to_owned()
    };
    let model = [
        "/sys/firmware/devicetree/base/model",
        "/sys/class/dmi/id/product_name",
    ];
    let model = model.iter().map(read).find(|it| !it.is_empty());
    let memory = read("/proc/meminfo");
    let cores = online_cores();
    let kernel = format!("Linux {}", read("/proc/sys/kernel/osrelease"));
    Facts {
        model: wire::fact(model.unwrap_or_default().trim_matches(['\0', '\n', ' '])),
        cpu: wire::fact(&field(&["model name", "Model", "Hardware", "CPU part"])),
        n_cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u16),
        architecture: std::env::consts::ARCH.to_owned(),
        kernel: wire::fact(kernel.trim()),
        memory_bytes: kibibytes(&memory, "MemTotal"),
        swap_bytes: kibibytes(&memory, "SwapTotal"),
        governor: wire::fact(read_from(cores.first(), "cpufreq/scaling_governor").trim()),
        max_clock_khz: { cores.iter() }
            .filter_map(|core| number(&read_from(Some(core), "cpufreq/cpuinfo_max_freq")))
            .min(),
        program: wire::fact(&program()),
        program_hash: program_hash(),
        matcher_kernel: Kernel::best().name().to_owned(),
    }
}

/// How this machine and this process are now.
#[must_use]
pub fn moment(at: Edge) -> Moment {
    // The chain takes time of its own, which is to be outside of what is measured.
    let early = (at == Edge::Before).then(pace_nanos);
    let mut moment = counters();
    moment.pace_nanos = early.unwrap_or_else(pace_nanos);
    moment
}

/// Which side of a window a moment is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Its beginning.
    Before,
    /// Its end.
    After,
}

fn counters() -> Moment {
    let (busy_ticks, stolen_ticks) = ticks(&read("/proc/stat"));
    let tick_micros = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let process = read("/proc/self/status");
    let system = read("/proc/vmstat");
    let cores = online_cores();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Moment {
        unix_micros: since.map_or(0, |since| since.as_micros() as u64),
        steady_micros: clock_micros(ClockId::Monotonic),
        busy_micros: busy_ticks * tick_micros,
        stolen_micros: stolen_ticks * tick_micros,
        own_micros: clock_micros(ClockId::ProcessCPUTime),
        displaced: value_of(&process, "nonvoluntary_ctxt_switches")
            .and_then(number)
            .unwrap_or(0),
        major_faults: major_faults(&read("/proc/self/stat")).unwrap_or(0),
        swapped_in: word_after(&system, "pswpin").and_then(number).unwrap_or(0),
        throttles: sum(cores.iter().map(|core| {
            number(&read_from(
                Some(core),
                "thermal_throttle/core_throttle_count",
            ))
        })),
        quota_waits: quota_waits(),
        firmware_throttled: firmware_throttled(),
        clock_khz: { cores.iter() }
            .filter_map(|core| number(&read_from(Some(core), "cpufreq/scaling_cur_freq")))
            .min(),
        temperature_millis: hottest(),
        memory_available: kibibytes(&read("/proc/meminfo"), "MemAvailable"),
        pace_nanos: 0,
    }
}

/// Most memory that this process had, and what it has now that no file stands behind.
#[must_use]
pub fn memory() -> (u64, u64) {
    let status = read("/proc/self/status");
    (kibibytes(&status, "VmHWM"), kibibytes(&status, "RssAnon"))
}

/// Bytes that had to come from a disk for this process; none if the system does not say.
#[must_use]
pub(super) fn bytes_from_disk() -> Option<u64> {
    value_of(&read("/proc/self/io"), "read_bytes").and_then(number)
}

/// Name, version and commit.
#[must_use]
pub fn program() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("EYAS_COMMIT") {
        Some(commit) if !commit.is_empty() => format!("eyas-device {version} ({commit})"),
        _ => format!("eyas-device {version}"),
    }
}

fn program_hash() -> [u8; 32] {
    let read = fs::read(std::env::current_exe().unwrap_or_default());
    read.map_or([0; 32], |bytes| {
        eyas_shared::fingerprint::Fingerprint::of_bytes(&bytes).0
    })
}

/// A chain of multiplications and additions each of which waits for the one before: its
/// time is a number of clock cycles that is the same on every run.
fn pace_nanos() -> u64 {
    let run = || {
        let began = Instant::now();
        let mut value = black_box(1_u64);
        for _ in 0..PACE_STEPS {
            value = value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        }
        black_box(value);
        began.elapsed().as_nanos() as u64
    };
    (0..PACE_RUNS).map(|_| run()).min().unwrap_or(0)
}

fn clock_micros(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// A small file's text; nothing if there is none.
fn read(path: impl AsRef<Path>) -> String {
    let bytes = eyas_shared::files::read(path.as_ref(), MAX_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_from(folder: Option<&PathBuf>, name: &str) -> String {
    folder.map_or_else(String::new, |folder| read(folder.join(name)))
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.split_whitespace().next()?.parse().ok()
}

fn sum(numbers: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    numbers.flatten().reduce(u64::saturating_add)
}

/// The value of `name: value` in lines of such.
fn value_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// The word after `name` in lines of such.
fn word_after<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()).flatten()
    })
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let kibibytes: Option<u64> = value_of(text, name).and_then(number);
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

/// Ticks that all cores worked, and that the machine below took (`proc_stat(5)`).
fn ticks(stat: &str) -> (u64, u64) {
    let Some(line) = stat.lines().find(|line| line.starts_with("cpu ")) else {
        return (0, 0);
    };
    let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(number).collect();
    let at = |idx: usize| ticks.get(idx).copied().unwrap_or(0);
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = [0, 1, 2, 5, 6].map(at).iter().sum();
    (busy, at(7))
}

/// The twelfth field (`proc_pid_stat(5)`), counted after the name, which may hold anything.
fn major_faults(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    number(rest.split_whitespace().nth(9)?)
}

fn online_cores() -> Vec<PathBuf> {
    let folder = Path::new("/sys/devices/system/cpu");
    let n_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (0..n_cores)
        .map(|core| folder.join(format!("cpu{core}")))
        .filter(|core| core.is_dir())
        .collect()
}

/// How often the control groups that this process is in have held it up, old kind and new.
fn quota_waits() -> Option<u64> {
    let groups = read("/proc/self/cgroup");
    let waits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        let group = fields.next()?;
        let root = match controllers.is_empty() {
            true => Path::new("/sys/fs/cgroup"),
            false if controllers.split(',').any(|it| it == "cpu") => {
                Path::new("/sys/fs/cgroup/cpu")
            }
            false => return None,
        };
        // A quota of a group holds for all groups below it.
        let mut group = Some(Path::new(group));
        let mut found = None;
        while let Some(at) = group {
            let relative = at.strip_prefix("/").unwrap_or(at);
            let stat = read(root.join(relative).join("cpu.stat"));
            let waits: Option<u64> = word_after(&stat, "nr_throttled").and_then(number);
            found = sum([found, waits].into_iter());
            group = at.parent();
        }
        found
    });
    sum(waits.map(Some))
}

/// What the firmware of a Raspberry Pi says.
fn firmware_throttled() -> Option<u32> {
    let said = read("/sys/devices/platform/soc/soc:firmware/get_throttled");
    u32::from_str_radix(said.trim().trim_start_matches("0x"), 16).ok()
}

fn hottest() -> Option<i32> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?.flatten();
    zones
        .filter_map(|zone| number(&read(zone.path().join("temp"))))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_counters() {
        let before = moment(Edge::Before);
        let mut value = 1_u64;
        let began = Instant::now();
        while began.elapsed().as_millis() < 60 {
            value = black_box(value.wrapping_mul(3));
        }
        let after = moment(Edge::After);
        let worked = after.own_micros - before.own_micros;
        let passed = after.steady_micros - before.steady_micros;
        assert!(worked > 0 && passed >= 60_000, "{worked} {passed}");
        assert!(after.busy_micros >= before.busy_micros);
        assert!(after.unix_micros > 0 && after.pace_nanos > 0 && after.memory_available > 0);
    }

    #[test]
    fn this_machine_is_described() {
        let facts = facts();
        assert!(facts.n_cores >= 1 && facts.memory_bytes > 0);
        assert!(facts.kernel.starts_with("Linux ") && facts.program.contains("eyas-device"));
        let (peak, own) = memory();
        assert!(peak >= own && own > 0, "{peak} {own}");
    }

    #[test]
    fn fields_are_found_by_their_names() {
        let stat = "cpu  10 1 5 900 7 2 3 4 0 0\ncpu0 1 2 3 4\n";
        assert_eq!(ticks(stat), (21, 4));
        let odd = "77 (a) name) S 1 2 3 4 5 6 7 8 99 10";
        assert_eq!(major_faults(odd), Some(99));
        assert_eq!(
            kibibytes("MemTotal:  12 kB\nMemFree: 3 kB\n", "MemFree"),
            3072
        );
        assert_eq!(word_after("pswpin 5\npswpout 6\n", "pswpout"), Some("6"));
        assert_eq!(value_of("model name\t: X 1\n", "model name"), Some("X 1"));
    }
}
