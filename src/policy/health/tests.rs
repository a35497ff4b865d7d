//! Each finding, provoked once.

use super::*;
use crate::model::nodes::{Layout as NodeLayout, Node, Weights};
use crate::model::{Bytes, Mode};

pub(super) fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// A host on which nothing is to be said.
pub(super) fn healthy() -> Facts {
    let controllers = words(&["memory", "cpu", "pids", "cpuset", "io"]);
    Facts {
        host: Host {
            release: Some("6.8.0-45-generic".to_owned()),
            cgroups: Some(Cgroups {
                layout: Layout::V2,
                controllers: controllers.clone(),
                delegated: controllers,
                limit: LimitTrial::Written,
                counts_swap: Some(true),
                drops_cache: Some(true),
            }),
            pressure: PressureReports::On,
            has_swap: true,
            is_root: true,
            missing_capabilities: Vec::new(),
            no_priority: None,
            clock_is_kept: Some(true),
            year: 2026,
        },
        placement: placement(),
        containerds: vec![containerd()],
        docker: Some(Docker {
            pid: Some(2),
            file: "/etc/docker/daemon.json".to_owned(),
            problem: None,
            runtimes: vec![DockerRuntime {
                name: "elastic-mem".to_owned(),
                target: "/usr/bin/elastic-mem".to_owned(),
                problem: None,
            }],
        }),
        own: Own {
            config: ConfigFiles {
                main: "/etc/elastic-mem/config.toml".to_owned(),
                files: 1,
                values: 2,
                mistakes: Vec::new(),
                mode: Mode::Elastic,
                functions_differ: false,
            },
            state: StateFolder {
                path: "/run/elastic-mem".to_owned(),
                is_there: true,
                is_private: true,
                is_in_memory: true,
            },
            containers: vec![container()],
            unreadable: Vec::new(),
            profiles: Profiles {
                folder: "/var/lib/elastic-mem".to_owned(),
                unusable: None,
                functions: 3,
                problems: Vec::new(),
            },
        },
    }
}

/// Two nodes, one without processors.
fn placement() -> Placement {
    let node = |number, has_cpus, tier| Node {
        number,
        has_cpus,
        memory: Bytes::new(1 << 30),
        tier: Some(tier),
        ..Node::default()
    };
    Placement {
        layout: NodeLayout {
            nodes: vec![node(0, true, 4), node(1, false, 5)],
            weights: Some(Weights {
                nodes: [(0, 3), (1, 1)].into(),
                auto: Some(true),
            }),
        },
        no_interleaving: None,
        no_touched: None,
        demotes: Some(false),
        generations: (true, true),
        has_damon: true,
        damon_user: None,
    }
}

#[test]
fn what_the_host_lacks_to_place_memory() {
    each(&[
        (
            |f| f.placement.no_interleaving = Some("invalid argument".to_owned()),
            "placement.interleaving",
            Status::Note,
            "invalid argument",
        ),
        (
            |f| f.placement.layout.weights = None,
            "placement.weights",
            Status::Note,
            "one to one",
        ),
        (
            |f| f.placement.no_touched = Some("no process_madvise".to_owned()),
            "placement.touched",
            Status::Note,
            "faasmem and pond",
        ),
        (
            |f| f.placement.demotes = Some(true),
            "placement.demotion",
            Status::Note,
            "demotion_enabled",
        ),
        (
            |f| f.placement.generations = (false, false),
            "placement.generations",
            Status::Note,
            "echo y",
        ),
        (
            |f| f.placement.generations = (true, false),
            "placement.generations",
            Status::Note,
            "debugfs",
        ),
        (
            |f| f.placement.has_damon = false,
            "placement.damon",
            Status::Note,
            "CONFIG_DAMON",
        ),
        (
            |f| f.placement.damon_user = Some("reclaim".to_owned()),
            "placement.damon",
            Status::Note,
            "used by reclaim",
        ),
    ]);
    let seen = |facts: &Facts, id: &str| {
        let found = judge(facts).into_iter().find(|finding| finding.id == id);
        found.map(|finding| finding.seen)
    };
    let nodes = seen(&healthy(), "placement.nodes").unwrap();
    assert_eq!(
        nodes,
        "memory nodes 0-1: local 0, remote 1 (0 in tier 4, 1 in tier 5)"
    );
    let weights = seen(&healthy(), "placement.weights").unwrap();
    assert_eq!(weights, "0=3, 1=1, as the firmware says");
    let mut one = healthy();
    one.placement = Placement::default();
    assert!(
        seen(&one, "placement.nodes")
            .unwrap()
            .contains("nothing to place")
    );
    assert_eq!(seen(&one, "placement.damon"), None);
}

pub(super) fn containerd() -> Containerd {
    Containerd {
        pid: 1,
        program: "/usr/bin/containerd".to_owned(),
        version: Some("v1.7.24".to_owned()),
        search: Some(words(&["/", "/usr/local/bin", "/usr/bin"])),
        shim: Some(Shim {
            path: "/usr/local/bin/containerd-shim-elastic-mem-v1".to_owned(),
            version: Some("0.1.0".to_owned()),
        }),
        ours: "0.1.0".to_owned(),
        config: ContainerdConfig::Read {
            file: "/etc/containerd/config.toml".to_owned(),
            version: 2,
            handlers: vec![handler()],
        },
        is_of_docker: false,
    }
}

fn handler() -> Handler {
    Handler {
        name: "elastic-mem".to_owned(),
        file: "/etc/containerd/config.toml".to_owned(),
        plugin: "io.containerd.grpc.v1.cri".to_owned(),
        is_imported: false,
        pod_annotations: words(&["elastic-mem.io/*"]),
        path: None,
    }
}

fn container() -> Container {
    Container {
        name: "default/thumb".to_owned(),
        folder: "/run/elastic-mem/default/thumb".to_owned(),
        owner: Owner::Guarded,
        is_lowered: true,
        is_stale: false,
    }
}

/// What is worse than ok after a change, and has words for each reader.
pub(super) fn bad(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = healthy();
    change(&mut facts);
    let mut findings = judge(&facts);
    findings.retain(|finding| finding.status != Status::Ok);
    findings
}

/// The one finding that a change makes.
pub(super) fn only(change: impl FnOnce(&mut Facts)) -> Finding {
    let mut findings = bad(change);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

fn cgroups(facts: &mut Facts) -> &mut Cgroups {
    facts.host.cgroups.as_mut().unwrap()
}

#[test]
fn of_a_healthy_host_nothing_is_said_but_ok() {
    assert_eq!(bad(|_| {}), []);
    let findings = judge(&healthy());
    assert_eq!(worst(&findings), Status::Ok);
    let mut ids: Vec<_> = findings.iter().map(|finding| finding.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), findings.len(), "each is said once");
}

#[test]
fn releases_that_weigh_control_groups_rightly_are_ok() {
    for release in ["6.12.44", "6.18.45", "6.18.0-3-amd64", "6.18", "7.0.1"] {
        assert_eq!(
            bad(|facts| facts.host.release = Some(release.to_owned())),
            [],
            "{release}"
        );
    }
}

#[test]
fn the_worst_is_found() {
    let of = |list: &[Status]| {
        let findings: Vec<_> = list
            .iter()
            .map(|status| Finding::new(*status, "x", ""))
            .collect();
        worst(&findings)
    };
    assert_eq!(of(&[]), Status::Ok);
    assert_eq!(of(&[Status::Error, Status::Note]), Status::Error);
    assert_eq!(
        of(&[Status::Ok, Status::Warning, Status::Note]),
        Status::Warning
    );
}

/// A change, the id and status that it leads to, and a word of what is said.
pub(super) type Case = (fn(&mut Facts), &'static str, Status, &'static str);

pub(super) fn each(cases: &[Case]) {
    for (change, id, status, word) in cases {
        let found = only(change);
        assert_eq!((found.id, found.status), (*id, *status), "{found:#?}");
        let all = format!("{} {:?} {:?}", found.seen, found.means, found.fix);
        assert!(all.contains(word), "{word}: {all}");
        if *status > Status::Note {
            assert!(found.means.is_some(), "{found:#?}");
        }
    }
}

#[test]
fn what_the_kernel_lacks() {
    each(&[
        (
            |f| f.host.release = None,
            "kernel.release",
            Status::Warning,
            "cannot be read",
        ),
        (
            |f| f.host.release = Some("custom".to_owned()),
            "kernel.release",
            Status::Note,
            "5.3",
        ),
        (
            |f| f.host.release = Some("4.19.0-27-amd64".to_owned()),
            "kernel.release",
            Status::Error,
            "newer kernel",
        ),
        (
            |f| f.host.release = Some("6.18.44-cloud".to_owned()),
            "kernel.release",
            Status::Note,
            "6.18.45 or newer",
        ),
        (
            |f| f.host.pressure = PressureReports::Off,
            "kernel.pressure",
            Status::Note,
            "psi=1",
        ),
        (
            |f| f.host.pressure = PressureReports::Absent,
            "kernel.pressure",
            Status::Note,
            "CONFIG_PSI",
        ),
        (
            |f| f.host.clock_is_kept = Some(false),
            "host.clock",
            Status::Note,
            "set-ntp",
        ),
        (
            |f| f.host.clock_is_kept = None,
            "host.clock",
            Status::Note,
            "not seen",
        ),
        (
            |f| f.host.year = 1970,
            "host.clock",
            Status::Warning,
            "1970",
        ),
    ]);
}

#[test]
fn what_the_control_groups_lack() {
    each(&[
        (
            |f| f.host.cgroups = None,
            "cgroup.layout",
            Status::Error,
            "mount -t cgroup2",
        ),
        (
            |f| cgroups(f).layout = Layout::Hybrid,
            "cgroup.layout",
            Status::Note,
            "unified_cgroup_hierarchy",
        ),
        (
            |f| cgroups(f).layout = Layout::V1,
            "cgroup.layout",
            Status::Note,
            "cgroup v1",
        ),
        (
            |f| {
                let names = words(&["cpu", "pids", "cpuset", "io"]);
                (cgroups(f).controllers, cgroups(f).delegated) = (names.clone(), names);
            },
            "cgroup.controllers",
            Status::Error,
            "cgroup_enable=memory",
        ),
        (
            |f| {
                let names = words(&["memory", "cpu", "pids", "cpuset"]);
                (cgroups(f).controllers, cgroups(f).delegated) = (names.clone(), names);
            },
            "cgroup.controllers",
            Status::Warning,
            "lacks io",
        ),
        (
            |f| cgroups(f).delegated = words(&["cpu", "pids", "io"]),
            "cgroup.controllers",
            Status::Note,
            "'+memory +cpuset'",
        ),
        (
            |f| cgroups(f).limit = LimitTrial::Refused("create: read-only file system".to_owned()),
            "cgroup.limit",
            Status::Error,
            "remount,rw",
        ),
        (
            |f| cgroups(f).limit = LimitTrial::NotTried,
            "cgroup.limit",
            Status::Note,
            "only root",
        ),
        (
            |f| cgroups(f).counts_swap = Some(false),
            "cgroup.swap",
            Status::Warning,
            "swapaccount=1",
        ),
        (
            |f| cgroups(f).counts_swap = None,
            "cgroup.swap",
            Status::Note,
            "not seen",
        ),
        (
            |f| cgroups(f).drops_cache = Some(false),
            "cgroup.reclaim",
            Status::Note,
            "5.19",
        ),
        (
            |f| cgroups(f).drops_cache = None,
            "cgroup.reclaim",
            Status::Note,
            "not seen",
        ),
    ]);
    // Where nothing is swapped out nothing has to count.
    assert_eq!(
        bad(|f| {
            f.host.has_swap = false;
            cgroups(f).counts_swap = Some(false);
        }),
        []
    );
    // cgroup v1 calls io blkio.
    let v1 = words(&["memory", "cpu", "pids", "cpuset", "blkio"]);
    assert_eq!(
        bad(|f| (cgroups(f).controllers, cgroups(f).delegated) = (v1.clone(), v1)),
        []
    );
}

#[test]
fn what_only_root_can_see_is_not_judged() {
    let found = bad(|f| {
        f.host.is_root = false;
        f.own.profiles.unusable = Some("open folder /p: permission denied".to_owned());
    });
    let ids: Vec<_> = found.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["process.root", "state.records", "profiles.store"]);
    assert_eq!(worst(&found), Status::Note);
}

#[test]
fn what_this_process_may_not_do() {
    each(&[
        (
            |f| f.host.missing_capabilities = words(&["CAP_SYS_ADMIN"]),
            "process.capabilities",
            Status::Error,
            "CAP_SYS_ADMIN",
        ),
        (
            |f| f.host.missing_capabilities = words(&["CAP_SYS_RESOURCE"]),
            "process.capabilities",
            Status::Warning,
            "restrict_oom_score_adj",
        ),
        (
            |f| f.host.missing_capabilities = words(&["CAP_MKNOD"]),
            "process.capabilities",
            Status::Warning,
            "bounding set",
        ),
        (
            |f| f.host.no_priority = Some("operation not permitted".to_owned()),
            "process.priority",
            Status::Note,
            "CAP_SYS_NICE",
        ),
    ]);
}

#[test]
fn what_is_wrong_with_what_is_ours() {
    each(&[
        (
            |f| f.own.config.mistakes = words(&["/c: unknown key \"x\"", "b", "c"]),
            "config.files",
            Status::Error,
            "2 other mistakes",
        ),
        (
            |f| f.own.config.mode = Mode::Observe,
            "config.mode",
            Status::Note,
            "no memory is saved",
        ),
        (
            |f| f.own.config.mode = Mode::Off,
            "config.mode",
            Status::Note,
            "neither looked at",
        ),
        (
            |f| f.own.state.is_private = false,
            "state.folder",
            Status::Error,
            "chmod 0700",
        ),
        (
            |f| f.own.state.is_in_memory = false,
            "state.folder",
            Status::Warning,
            "tmpfs",
        ),
        (
            |f| f.own.profiles.unusable = Some("/p belongs to somebody else".to_owned()),
            "profiles.store",
            Status::Error,
            "belongs to somebody else",
        ),
        (
            |f| {
                f.own.profiles.problems = vec![Problem {
                    path: "/p/profile.json".to_owned(),
                    what: "was set aside".to_owned(),
                }];
            },
            "profiles.store",
            Status::Warning,
            "--repair",
        ),
    ]);
    assert_eq!(bad(|f| f.own.state.is_there = false), []);
    assert_eq!(bad(|f| f.own.config.files = 0), []);
}

#[test]
fn what_the_dead_have_left() {
    const ID: &str = "state.records";
    each(&[
        (
            |f| f.own.containers[0].owner = Owner::Dead,
            ID,
            Status::Error,
            "elastic-mem state",
        ),
        (
            |f| {
                f.own.containers[0].owner = Owner::Dead;
                f.own.containers[0].is_lowered = false;
            },
            ID,
            Status::Warning,
            "runs on at its ceiling",
        ),
        (
            |f| {
                f.own.containers[0].owner = Owner::Dead;
                f.own.containers[0].is_stale = true;
            },
            ID,
            Status::Note,
            "rm -r /run/elastic-mem/default/thumb",
        ),
        (
            |f| f.own.unreadable = words(&["/run/elastic-mem/default/x"]),
            ID,
            Status::Warning,
            "/run/elastic-mem/default/x",
        ),
        (
            |f| f.own.containers[0].owner = Owner::Unguarded,
            "state.guardians",
            Status::Warning,
            "no guardian for default/thumb",
        ),
    ]);
    // Without anything to give back nobody needs a guardian.
    assert_eq!(
        bad(|f| {
            f.own.containers[0].owner = Owner::Unguarded;
            f.own.containers[0].is_lowered = false;
        }),
        []
    );
    let many = only(|f| {
        f.own.containers = (1..=5)
            .map(|number| Container {
                name: format!("default/f{number}"),
                owner: Owner::Dead,
                ..container()
            })
            .collect();
    });
    assert!(many.seen.ends_with("f3 and 2 more"), "{}", many.seen);
}
