//! `list`, `ps` and `events`: what is known about containers.

use serde_json::Value;

use crate::harness::text::{shape, sorted};
use crate::harness::{Case, differential, eventually};

/// A table with single blanks, because widths follow the ids.
fn cells(table: &str) -> String {
    let rows: Vec<_> = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    rows.join("\n")
}

/// Replaces process ids and times of a JSON document by their kind.
fn calm(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(calm),
        Value::Object(map) => {
            for (key, value) in map {
                match key.as_str() {
                    "pid" if value.as_i64().is_some_and(|pid| pid > 0) => {
                        *value = "a process".into()
                    }
                    "created" => *value = "a time".into(),
                    _ => calm(value),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn an_empty_list_is_empty() {
    differential(|c| {
        let table = c.call("list").stdout;
        c.note("table", &cells(&table));
        assert!(table.starts_with("ID "), "{table}");
        c.ok("list --format json");
        c.ok("list --quiet");
    });
}

#[test]
fn the_list_shows_every_container() {
    differential(|c| {
        c.up();
        let pid = c.pid().to_string();
        let created = c.state().expect("state")["created"]
            .as_str()
            .expect("time")
            .to_owned();
        let table = c.call("list").stdout;
        c.note(
            "table",
            &cells(&table)
                .replace(&pid, "PID")
                .replace(&created, "CREATED"),
        );
        assert!(
            table.contains(c.id()) && table.contains("running"),
            "{table}"
        );
        let quiet = c.ok("list --quiet").stdout;
        assert_eq!(quiet, format!("{}\n", c.id()));
        c.ok("list -q");
    });
}

#[test]
fn the_list_as_json_has_runcs_fields() {
    differential(|c| {
        c.spec()["annotations"] = serde_json::json!({"org.example.key": "value"});
        c.idle();
        c.create();
        let text = c.call("list --format json").stdout;
        let mut list: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(list[0]["id"], c.id());
        calm(&mut list);
        c.note(
            "list",
            &serde_json::to_string_pretty(&list).expect("serialise"),
        );
    });
}

#[test]
fn the_list_follows_the_status() {
    differential(|c| {
        let rows = |c: &Case| cells(&c.call("list").stdout);
        c.script("true");
        c.create();
        assert!(rows(c).contains(" created "), "{}", rows(c));
        c.ok("start ID");
        c.wait_for("stopped");
        let row = rows(c);
        let row = row.lines().nth(1).expect("a row");
        let fields: Vec<_> = row.split(' ').take(4).collect();
        c.note("row", &fields.join(" "));
        assert_eq!(fields[1..3], ["0", "stopped"], "{row}");
    });
}

#[test]
fn an_unknown_format_is_refused() {
    differential(|c| {
        c.up();
        c.fails("list --format yaml", &["format"]);
        c.fails("ps --format yaml ID", &["format"]);
    });
}

#[test]
fn ps_lists_the_processes_of_the_container_as_json() {
    differential(|c| {
        c.script("sleep 1000 & sleep 1001 & wait");
        c.create();
        c.ok("start ID");
        let pids = eventually(|| {
            let text = c.call("ps --format json ID").stdout;
            let pids: Vec<i32> = serde_json::from_str(&text).expect("JSON");
            (pids.len() == 3).then_some(pids)
        })
        .expect("three processes");
        let mut pids = pids;
        pids.sort_unstable();
        let procs = c.cgroup_file("devices.list");
        assert!(!procs.is_empty());
        let mut seen: Vec<_> = c.processes().into_iter().map(|(pid, _)| pid).collect();
        seen.sort_unstable();
        assert_eq!(pids, seen);
        // The document is one line without blanks, as a Go program prints it.
        let text = c.call("ps -f json ID").stdout;
        c.note(
            "shape",
            &text
                .chars()
                .filter(|ch| !ch.is_ascii_digit())
                .collect::<String>(),
        );
    });
}

fn commands(table: &str) -> String {
    let rows: Vec<_> = table
        .lines()
        .map(|row| row.split_whitespace().skip(7).collect::<Vec<_>>().join(" "))
        .collect();
    rows.join("\n")
}

#[test]
fn ps_prints_the_hosts_table_of_the_containers_processes() {
    if crate::harness::host::find("ps").is_none() {
        return crate::harness::skip("no ps program");
    }
    differential(|c| {
        c.up();
        let outcome = c.call("ps ID");
        assert_eq!(outcome.code, 0, "{outcome}");
        c.note("commands", &sorted(&commands(&outcome.stdout)));
        let header = outcome.stdout.lines().next().unwrap_or_default();
        c.note("header", header);
        assert!(outcome.stdout.contains("sleep 1000"), "{outcome}");
        assert_eq!(outcome.stdout.lines().count(), 2, "{outcome}");
        let pid = c.pid().to_string();
        let custom = c.call("ps ID -o pid,comm");
        c.note("custom", &cells(&custom.stdout).replace(&pid, "PID"));
        assert!(custom.stdout.contains("sleep"), "{custom}");
        let full = c.call("ps ID -ef");
        assert!(full.stdout.contains("sleep 1000"), "{full}");
    });
}

#[test]
fn ps_without_a_pid_column_is_refused() {
    if crate::harness::host::find("ps").is_none() {
        return crate::harness::skip("no ps program");
    }
    differential(|c| {
        c.up();
        c.fails("ps ID -o comm", &["PID"]);
    });
}

#[test]
fn ps_of_a_stopped_container_is_empty() {
    differential(|c| {
        c.script("true");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        c.ok("ps --format json ID");
    });
}

/// Consumers read the numbers by their names: all of runc's are there.
#[test]
fn statistics_have_runcs_names_and_types() {
    differential(|c| {
        c.up();
        // The threads of the runtime that became init may still end.
        let mut text = String::new();
        let stats = eventually(|| {
            text = c.call("events --stats ID").stdout;
            let stats: Value = serde_json::from_str(&text).expect("JSON");
            (stats["data"]["pids"]["current"] == 1).then_some(stats)
        });
        let mut stats = stats.expect(&text);
        assert_eq!(stats["type"], "stats");
        assert_eq!(stats["id"], c.id());
        assert!(
            stats["data"]["memory"]["usage"]["usage"].as_u64() > Some(0),
            "{text}"
        );
        // Empty until the container does block I/O, and then the kernel's.
        let blkio = stats["data"]["blkio"].take();
        assert!(blkio.is_object(), "{text}");
        // runc 1.1.15 has none with cgroup v2: it looks for a file that no kernel has (opencontainers/cgroups#24).
        let huge_pages = stats["data"]["hugetlb"].take();
        for (size, pages) in huge_pages.as_object().expect("by size") {
            assert_eq!(pages, &serde_json::json!({"failcnt": 0}), "{size}: {text}");
        }
        c.note(
            "shape",
            &serde_json::to_string_pretty(&shape(&stats)).expect("serialise"),
        );
    });
}

#[test]
fn statistics_tell_the_limits() {
    differential(|c| {
        c.spec()["linux"]["resources"]["memory"] = serde_json::json!({"limit": 67_108_864});
        c.spec()["linux"]["resources"]["pids"] = serde_json::json!({"limit": 30});
        c.spec()["linux"]["resources"]["cpu"] = serde_json::json!({"quota": 50_000});
        c.up();
        let text = c.call("events --stats ID").stdout;
        let stats: Value = serde_json::from_str(&text).expect("JSON");
        let data = &stats["data"];
        c.note(
            "limits",
            &format!(
                "{} {}",
                data["memory"]["usage"]["limit"], data["pids"]["limit"]
            ),
        );
        assert_eq!(data["pids"]["limit"], 30, "{text}");
    });
}

#[test]
fn statistics_come_in_intervals_until_the_end() {
    differential(|c| {
        c.up();
        let running = c.cmd().args(c.words("events --interval 100ms ID")).spawn();
        let seen = eventually(|| (running.stdout_now().lines().count() >= 2).then_some(()));
        assert!(seen.is_some());
        c.ok("kill ID KILL");
        c.wait_for("stopped");
        c.ok("delete ID");
        // It ends by itself with the container.
        let outcome = running.wait();
        let first = outcome.stdout.lines().next().unwrap_or_default();
        let first: Value = serde_json::from_str(first).expect("JSON");
        c.note(
            "code and type",
            &format!("{} {}", outcome.code, first["type"]),
        );
    });
}

#[test]
fn events_of_a_stopped_container_are_refused() {
    differential(|c| {
        c.script("true");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        c.fails("events --stats ID", &["is not running"]);
    });
}
