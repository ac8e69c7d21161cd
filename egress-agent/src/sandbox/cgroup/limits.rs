//! From limits to the kernel's files.
//!
//! Every limit is one write into one file of the sandbox's cgroup. A limit whose
//! controller is not there is not written and comes back with the reason.

use super::{CgroupError, Controller, Controllers, SandboxCgroup};
use crate::policy::{IoLimit, Limits};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The kernel's own period, and the longest one, in microseconds
/// (kernel/sched/fair.c, `max_cfs_quota_period`).
const PERIOD: u64 = 100_000;
const LONG_PERIOD: u64 = 1_000_000;

/// The first process of the sandbox's pid namespace counts for the kernel, and
/// is nobody's in the sandbox.
const OWN_PROCESSES: u64 = 1;

/// One limit as the kernel takes it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Setting {
    /// The policy's key.
    key: &'static str,
    controller: Controller,
    file: &'static str,
    value: String,
}

/// A limit that the host does not enforce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unenforced {
    /// The policy's key.
    pub key: &'static str,
    /// Why.
    pub why: String,
}

impl SandboxCgroup {
    /// Limits the sandbox, and gives back what this host does not enforce: with
    /// that left out, the rest holds. `before` is what limited it until now.
    pub fn limit(
        &self,
        before: &Limits,
        limits: &Limits,
        controllers: &Controllers,
    ) -> Result<Vec<Unenforced>, CgroupError> {
        let mut unenforced: Vec<Unenforced> = Vec::new();
        let (old, wanted) = (settings(before), settings(limits));
        // What a file held before and nobody wants any more is lifted.
        let lifted = old
            .into_iter()
            .filter(|old| !wanted.iter().any(|new| new.file == old.file))
            .filter_map(|old| {
                Some(Setting {
                    value: unlimited(old.file)?.into(),
                    ..old
                })
            });
        for setting in lifted.chain(wanted.iter().cloned()) {
            if let Some(why) = self.set(&setting, controllers)?
                && !unenforced.iter().any(|known| known.key == setting.key)
            {
                unenforced.push(Unenforced {
                    key: setting.key,
                    why,
                });
            }
        }
        for limit in &before.io {
            if !limits.io.iter().any(|new| new.device == limit.device) {
                let none = IoLimit {
                    device: limit.device.clone(),
                    ..IoLimit::default()
                };
                // A device that has gone limits nothing any more.
                if let Ok(device) = device_number(&limit.device) {
                    self.set(&io_setting(&device, &none), controllers)?;
                }
            }
        }
        for limit in &limits.io {
            let why = match device_number(&limit.device) {
                Ok(device) => self.set(&io_setting(&device, limit), controllers)?,
                Err(why) => Some(why),
            };
            if let Some(why) = why {
                unenforced.push(Unenforced {
                    key: "io_limit",
                    why,
                });
            }
        }
        Ok(unenforced)
    }

    /// Writes one limit; why it is not in force, if the host does not have it.
    fn set(
        &self,
        setting: &Setting,
        controllers: &Controllers,
    ) -> Result<Option<String>, CgroupError> {
        if let Some(why) = controllers.lack(setting.controller) {
            return Ok(Some(why.to_owned()));
        }
        match self.write(setting.file, &setting.value) {
            Ok(()) => Ok(None),
            Err(CgroupError::Missing(_)) if setting.is_trivial() => Ok(None),
            Err(CgroupError::Missing(path)) => Ok(Some(format!(
                "the kernel has no {}",
                path.file_name().unwrap_or_default().to_string_lossy()
            ))),
            Err(error) => Err(error),
        }
    }
}

impl Setting {
    /// A kernel that cannot swap has no file to say so in.
    fn is_trivial(&self) -> bool {
        self.file == "memory.swap.max" && self.value == "0"
    }
}

fn settings(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |key, controller, file, value: Option<String>| {
        settings.extend(value.map(|value| Setting {
            key,
            controller,
            file,
            value,
        }));
    };
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    set(
        "cpu_limit",
        Controller::Cpu,
        "cpu.max",
        limits.cpu.map(cpu_max),
    );
    let weight = limits.cpu_weight.map(u64::from);
    set("cpu_weight", Controller::Cpu, "cpu.weight", text(weight));
    // Before the limit itself: from its first byte on, all of it dies together.
    let together = limits.memory.map(|_| "1".to_owned());
    set(
        "memory_limit",
        Controller::Memory,
        "memory.oom.group",
        together,
    );
    let swap = limits.memory.map(|_| limits.memory_swap.unwrap_or(0));
    set(
        "memory_swap",
        Controller::Memory,
        "memory.swap.max",
        text(swap),
    );
    set(
        "memory_high",
        Controller::Memory,
        "memory.high",
        text(limits.memory_high),
    );
    set(
        "memory_limit",
        Controller::Memory,
        "memory.max",
        text(limits.memory),
    );
    let pids = limits.pids.map(|pids| u64::from(pids) + OWN_PROCESSES);
    set("pids_limit", Controller::Pids, "pids.max", text(pids));
    settings
}

/// What a file holds when nothing is limited.
fn unlimited(file: &str) -> Option<&'static str> {
    match file {
        "cpu.max" | "memory.swap.max" | "memory.high" | "memory.max" | "pids.max" => Some("max"),
        "cpu.weight" => Some("100"),
        "memory.oom.group" => Some("0"),
        _ => None,
    }
}

/// `QUOTA PERIOD`. The kernel takes no quota below a millisecond, so a small
/// share is one of a longer period.
fn cpu_max(thousandths: u32) -> String {
    let thousandths = u64::from(thousandths);
    let period = if thousandths < 10 {
        LONG_PERIOD
    } else {
        PERIOD
    };
    format!("{} {period}", thousandths * period / 1000)
}

fn io_setting(device: &str, limit: &IoLimit) -> Setting {
    let or_max = |number: Option<u64>| number.map_or("max".to_owned(), |n| n.to_string());
    Setting {
        key: "io_limit",
        controller: Controller::Io,
        file: "io.max",
        value: format!(
            "{device} rbps={} wbps={} riops={} wiops={}",
            or_max(limit.read_bytes),
            or_max(limit.write_bytes),
            or_max(limit.read_operations),
            or_max(limit.write_operations),
        ),
    }
}

/// `MAJOR:MINOR` of the whole device behind a path: the kernel limits disks, not
/// their partitions.
fn device_number(path: &str) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
    let number = if metadata.file_type().is_block_device() {
        metadata.rdev()
    } else {
        metadata.dev()
    };
    let (major, minor) = (libc::major(number), libc::minor(number));
    let device = format!("/sys/dev/block/{major}:{minor}");
    if !Path::new(&device).exists() {
        return Err(format!(
            "{path} is no block device and lies on none ({major}:{minor})"
        ));
    }
    if !Path::new(&format!("{device}/partition")).exists() {
        return Ok(format!("{major}:{minor}"));
    }
    std::fs::read_to_string(format!("{device}/../dev"))
        .map(|text| text.trim().to_owned())
        .map_err(|error| format!("the disk of {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_shares_of_a_cpu_have_a_longer_period() {
        assert_eq!(cpu_max(100), "10000 100000");
        assert_eq!(cpu_max(1500), "150000 100000");
        assert_eq!(cpu_max(1), "1000 1000000");
        assert_eq!(cpu_max(10), "1000 100000");
    }

    #[test]
    fn a_memory_limit_means_no_swap_and_one_death_for_all() {
        let limits = Limits {
            memory: Some(1 << 28),
            ..Limits::default()
        };
        let written: Vec<_> = settings(&limits)
            .into_iter()
            .map(|setting| (setting.file, setting.value))
            .collect();
        assert_eq!(
            written,
            [
                ("memory.oom.group", "1".to_owned()),
                ("memory.swap.max", "0".to_owned()),
                ("memory.max", "268435456".to_owned()),
            ]
        );
    }

    #[test]
    fn the_namespaces_own_process_does_not_count() {
        let limits = Limits {
            pids: Some(10),
            ..Limits::default()
        };
        assert_eq!(settings(&limits)[0].value, "11");
    }

    #[test]
    fn every_file_that_is_written_can_be_lifted() {
        let all = Limits {
            cpu: Some(1),
            cpu_weight: Some(1),
            memory: Some(1),
            memory_high: Some(1),
            memory_swap: Some(1),
            pids: Some(1),
            ..Limits::default()
        };
        for setting in settings(&all) {
            assert!(unlimited(setting.file).is_some(), "{}", setting.file);
        }
    }

    #[test]
    fn a_place_without_a_disk_is_said_to_have_none() {
        let why = device_number("/proc").expect_err("no disk");
        assert!(why.contains("no block device"), "{why}");
    }
}
