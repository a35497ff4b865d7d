use super::*;

fn limits(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

fn values(version: Version, json: serde_json::Value) -> Vec<(String, String)> {
    values_beside(Now::default(), version, json)
}

fn values_beside(now: Now, version: Version, json: serde_json::Value) -> Vec<(String, String)> {
    writes(version, &without_zeros(&limits(json)), now)
        .unwrap()
        .into_iter()
        .map(|w| (w.file, w.value))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn v2_swap_is_memory_and_swap_less_memory() {
    let got = values(
        Version::V2,
        serde_json::json!({"memory": {"limit": 100, "swap": 150, "reservation": 50}}),
    );
    let want = [
        ("memory.swap.max", "50"),
        ("memory.max", "100"),
        ("memory.low", "50"),
    ];
    assert_eq!(got, pairs(&want));
}

#[test]
fn v2_swap_below_memory_is_refused() {
    let limits = limits(serde_json::json!({"memory": {"limit": 100, "swap": 50}}));
    assert!(writes(Version::V2, &limits, Now::default()).is_err());
}

#[test]
fn v2_no_limit_is_the_word_max() {
    let got = values(
        Version::V2,
        serde_json::json!({"memory": {"limit": -1}, "pids": {"limit": -1}}),
    );
    let want = [
        ("memory.swap.max", "max"),
        ("memory.max", "max"),
        ("pids.max", "max"),
    ];
    assert_eq!(got, pairs(&want));
}

#[test]
fn shares_map_to_the_ends_and_the_default_of_weights() {
    assert_eq!(weight_of_shares(2), 1);
    assert_eq!(weight_of_shares(1024), 39);
    assert_eq!(weight_of_shares(262_144), 10_000);
    assert_eq!(weight_of_shares(u64::MAX), 10_000);
}

#[test]
fn v2_quota_without_period_keeps_the_period() {
    let got = values(Version::V2, serde_json::json!({"cpu": {"quota": 5000}}));
    assert_eq!(got, pairs(&[("cpu.max", "5000")]));
    let got = values(
        Version::V2,
        serde_json::json!({"cpu": {"quota": -1, "period": 100000}}),
    );
    assert_eq!(got, pairs(&[("cpu.max", "max 100000")]));
}

#[test]
fn v2_what_is_given_alone_goes_beside_what_holds() {
    let now = Now {
        quota: Some((5000, 100_000)),
        memory: Some(100),
    };
    let got = |json| values_beside(now, Version::V2, json);
    let period = serde_json::json!({"cpu": {"period": 50_000}});
    assert_eq!(got(period), pairs(&[("cpu.max", "5000 50000")]));
    let swap = serde_json::json!({"memory": {"swap": 150}});
    assert_eq!(got(swap.clone()), pairs(&[("memory.swap.max", "50")]));
    let both = serde_json::json!({"memory": {"limit": 20, "swap": 150}});
    let want = [("memory.swap.max", "130"), ("memory.max", "20")];
    assert_eq!(got(both), pairs(&want));
    let unlimited = Now {
        quota: Some((-1, 100_000)),
        memory: Some(-1),
    };
    let period = serde_json::json!({"cpu": {"period": 50_000}});
    let got = values_beside(unlimited, Version::V2, period);
    assert_eq!(got, pairs(&[("cpu.max", "max 50000")]));
    assert!(writes(Version::V2, &limits(swap), unlimited).is_err());
}

#[test]
fn zeros_are_not_given() {
    let zeros = serde_json::json!({
        "memory": {"limit": 0, "reservation": 0, "swap": 0, "kernelTCP": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
        "blockIO": {"weight": 0}, "pids": {"limit": 0}
    });
    for version in [Version::V1, Version::V2] {
        assert_eq!(values(version, zeros.clone()), pairs(&[]));
    }
}

#[test]
fn a_share_is_written_while_the_group_is_not_idle() {
    let got = |idle: i64| {
        let json = serde_json::json!({"cpu": {"shares": 1024, "idle": idle}});
        values(Version::V2, json)
    };
    assert_eq!(got(1), pairs(&[("cpu.weight", "39"), ("cpu.idle", "1")]));
    assert_eq!(got(0), pairs(&[("cpu.idle", "0"), ("cpu.weight", "39")]));
}

#[test]
fn a_limit_of_huge_pages_holds_for_reserved_ones_too() {
    let json = serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]});
    let got = values(Version::V2, json);
    let want = [
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
    ];
    assert_eq!(got, pairs(&want));
}

#[test]
fn unified_files_come_in_one_order_and_only_on_v2() {
    let json = serde_json::json!({"unified": {"memory.high": "2", "cpu.weight": "1"}});
    let got = values(Version::V2, json.clone());
    assert_eq!(got, pairs(&[("cpu.weight", "1"), ("memory.high", "2")]));
    assert!(writes(Version::V1, &limits(json), Now::default()).is_err());
}

#[test]
fn unified_cannot_leave_the_cgroup() {
    let json = serde_json::json!({"unified": {"../memory.max": "1"}});
    assert!(writes(Version::V2, &limits(json), Now::default()).is_err());
}

#[test]
fn v2_a_limit_that_is_to_be_checked_is_not_below_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("memory.current"), "100\n").unwrap();
    let group = |version| Cgroup {
        version,
        directories: vec![super::super::Directory {
            controllers: "memory".to_owned(),
            path: dir.path().to_path_buf(),
        }],
    };
    let checked = |version, json: serde_json::Value| check(&group(version), &limits(json));
    let json = |limit: i64, check: bool| serde_json::json!({"memory": {"limit": limit, "checkBeforeUpdate": check}});
    let err = checked(Version::V2, json(100, true)).unwrap_err();
    assert_eq!(err.to_string(), "rejecting memory limit 100 <= usage 100");
    for (limit, check) in [(101, true), (-1, true), (0, true), (100, false)] {
        checked(Version::V2, json(limit, check)).unwrap();
    }
    // The kernel does.
    checked(Version::V1, json(1, true)).unwrap();
    let both = serde_json::json!({"memory": {"swap": 50, "checkBeforeUpdate": true}});
    assert!(checked(Version::V2, both).is_err());
}
