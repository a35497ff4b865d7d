//! The command `characterize` where nothing can be measured. What it measures: tests/system.

use std::path::Path;

use crate::harness::{host, ours_beyond_runc, skip};

#[test]
fn a_host_with_one_kind_of_memory_has_nothing_to_measure() {
    if Path::new("/sys/devices/system/node/node1").exists() {
        return skip("this host may have remote memory");
    }
    if host::name_of(&host::our_program()) == "runc" {
        return skip("runc measures nothing");
    }
    ours_beyond_runc(|c| {
        let words = ["characterize", "--rootfs", "/", "--", "true"];
        let outcome = c.cmd().args(words).output();
        assert_eq!(outcome.code, 1, "{outcome}");
        assert!(outcome.stderr.contains("no remote memory"), "{outcome}");
        assert!(outcome.stderr.contains("doctor"), "{outcome}");
    });
}

#[test]
fn what_is_no_ratio_rate_or_quantile_is_refused_by_name() {
    ours_beyond_runc(|c| {
        for (option, bad, wanted) in [
            ("--ratios", "1,2", "0 to 1"),
            ("--quantile", "1", "below 1"),
            ("--rate", "0", "above 0"),
            ("--runs", "0", "1..=64"),
            ("--slo", "5", "500ms"),
        ] {
            let words = ["characterize", "--rootfs", "/", option, bad, "--", "true"];
            let outcome = c.cmd().args(words).output();
            assert_ne!(outcome.code, 0, "{outcome}");
            assert!(outcome.stderr.contains(option), "{outcome}");
            assert!(outcome.stderr.contains(wanted), "{outcome}");
        }
    });
}
