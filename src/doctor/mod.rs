//! Looks at this host: gathers what [`policy::health`](crate::policy::health) judges.
//!
//! Changes nothing but that it makes an empty control group and removes it, to see whether limits can be written.

mod containerd;
mod docker;
mod own;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use caps::{CapSet, Capability};
use chrono::Datelike;

use crate::config::Config;
use crate::kernel::cgroup::{Survey, Version};
use crate::kernel::probe::{Accepted, Probe};
use crate::kernel::{self, chain, process, touched, wait};
use crate::policy::health::{Cgroups, Facts, Host, Layout, LimitTrial, Placement, PressureReports};

/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(5);

/// What containers of usual bundles need. Docker and containerd give some of these to the containers themselves.
const NEEDED: [Capability; 14] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_RESOURCE,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_MKNOD,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_KILL,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETFCAP,
];

/// Gathers all facts. What cannot be seen is said to be unseen; nothing fails.
pub fn gather(config_file: &Path) -> Facts {
    let (mut own, config) = own::gather(config_file);
    let host = host(&config);
    let layout = host.cgroups.as_ref().map(|cgroups| cgroups.layout);
    own::settle_mode(&mut own, &config, layout);
    let pids = process::all();
    Facts {
        host,
        placement: placement(),
        containerds: containerd::gather(&pids),
        docker: docker::gather(&pids),
        own,
    }
}

fn host(config: &Config) -> Host {
    let is_root = nix::unistd::geteuid().is_root();
    let has = caps::read(None, CapSet::Effective).unwrap_or_default();
    let missing = NEEDED.into_iter().filter(|needed| !has.contains(needed));
    Host {
        release: kernel::release(),
        cgroups: Survey::take(is_root).ok().map(cgroups),
        pressure: match kernel::has_pressure() {
            Some(true) => PressureReports::On,
            Some(false) => PressureReports::Off,
            None => PressureReports::Absent,
        },
        has_swap: kernel::has_swap(),
        is_root,
        missing_capabilities: missing.map(|needed| needed.to_string()).collect(),
        no_priority: wait::try_priority(config.memory_priority.value)
            .err()
            .map(|err| chain(&err)),
        clock_is_kept: kernel::clock_is_kept(),
        year: chrono::Utc::now().year(),
    }
}

fn placement() -> Placement {
    let probe = Probe::host();
    Placement {
        layout: probe.layout,
        no_interleaving: match probe.weighted_interleave {
            Accepted::Yes => None,
            Accepted::No { reason } => Some(reason),
            Accepted::Unknown => Some("not asked".to_owned()),
        },
        no_touched: touched::can_tell().err(),
        demotes: probe.demotion_enabled,
        generations: (probe.generations.enabled, probe.generations.debugfs),
        has_damon: probe.damon.sysfs,
        damon_user: probe.damon.busy,
    }
}

fn cgroups(survey: Survey) -> Cgroups {
    Cgroups {
        layout: match (survey.version, survey.is_hybrid) {
            (Version::V2, _) => Layout::V2,
            (Version::V1, true) => Layout::Hybrid,
            (Version::V1, false) => Layout::V1,
        },
        controllers: survey.controllers,
        delegated: survey.delegated,
        limit: match survey.limit {
            Some(Ok(())) => LimitTrial::Written,
            Some(Err(err)) => LimitTrial::Refused(chain(&err)),
            None => LimitTrial::NotTried,
        },
        counts_swap: survey.counts_swap,
        drops_cache: survey.drops_cache,
    }
}

/// The processes of an executable, by the name of its file.
fn processes_of<'a>(pids: &'a [i32], name: &'a str) -> impl Iterator<Item = (i32, PathBuf)> + 'a {
    pids.iter().filter_map(move |pid| {
        let program = process::executable(*pid).ok()?;
        // The kernel says so of a file that was replaced.
        let text = program.to_str()?;
        let program = PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text));
        (program.file_name()? == name).then_some((*pid, program))
    })
}

/// The value of an option in the command line of a process: `--NAME VALUE` or `--NAME=VALUE`.
fn option(words: &[String], names: &[&str]) -> Option<String> {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let Some(flag) = word
            .strip_prefix('-')
            .map(|rest| rest.trim_start_matches('-'))
        else {
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if names.contains(&name) {
            return value.or_else(|| words.next().cloned());
        }
    }
    None
}

/// What a program prints when it is called with one argument; none if it fails or takes long.
fn ask(program: &Path, argument: &str) -> Option<String> {
    let mut child = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let ended = process::ProcessHandle::of(child.id().cast_signed())
        .and_then(|handle| handle.wait_ended(PATIENCE));
    if !matches!(ended, Ok(true)) {
        // Nobody waits for it any more.
        let _ = child.kill();
    }
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// A path of another process, as this one can open it: the other one may have another root.
fn seen_from_here(pid: i32, path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").unwrap_or(path);
    process::root_path(pid).join(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_others_are_found_in_every_form() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let names = ["config", "c"];
        for line in [
            "containerd --config /a -l debug",
            "containerd -l debug -c=/a",
            "containerd -c /a",
        ] {
            assert_eq!(
                option(&words(line), &names).as_deref(),
                Some("/a"),
                "{line}"
            );
        }
        assert_eq!(option(&words("containerd config dump"), &names), None);
        assert_eq!(option(&words("containerd --config"), &names), None);
    }

    #[test]
    fn a_program_that_fails_or_is_not_there_says_nothing() {
        assert_eq!(ask(Path::new("/bin/false"), "-v"), None);
        assert_eq!(ask(Path::new("/no/such/program"), "-v"), None);
        assert_eq!(ask(Path::new("/bin/echo"), "1.7").as_deref(), Some("1.7\n"));
    }
}
