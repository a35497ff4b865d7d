//! The command `cost`. Needs no root and no container.

use std::fs;

use crate::harness::{Cmd, host, skip};

/// Runs `cost`; `None` under another command than ours.
fn cost(args: &[&str]) -> Option<(i32, String, String)> {
    let program = host::our_program();
    if host::name_of(&program) == "runc" {
        skip("runc has no cost");
        return None;
    }
    let out = Cmd::new(program).arg("cost").args(args).output();
    Some((out.code, out.stdout, out.stderr))
}

fn succeeds(args: &[&str]) -> Option<String> {
    let (code, stdout, stderr) = cost(args)?;
    assert_eq!(code, 0, "{args:?}: {stderr}");
    Some(stdout)
}

const SAMPLE: [&str; 6] = [
    "--used",
    "772MB",
    "--duration",
    "2100ms",
    "--requests",
    "1000000",
];

fn sample<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SAMPLE.iter().chain(more).copied().collect()
}

#[test]
fn the_sample_of_the_paper_in_sentences() {
    let aws = [
        "--provider",
        "aws-lambda",
        "--date",
        "2020-08",
        "--allocated",
        "832MB",
        "--sentence",
    ];
    let Some(text) = succeeds(&sample(&aws)) else {
        return;
    };
    for part in [
        "772 MB used, 832 MB allocated",
        "28.63 USD; net 26.58 USD, overhead 2.05 USD",
        "wasted memory 7.71 %, by wasted time 0.00 %; wasted 0 ms, 60 MB",
        "surcharge on use 7.71 %, as share of the bill 7.16 %",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_table_is_sorted_by_cost_and_names_who_is_missing() {
    let Some(text) = succeeds(&sample(&[])) else {
        return;
    };
    let place = |name: &str| {
        text.find(&format!("\n{name} "))
            .unwrap_or_else(|| panic!("{name}: {text}"))
    };
    assert!(place("aws-lambda-arm64") < place("aws-lambda"));
    assert!(place("aws-lambda") < place("azure-flex"));
    assert!(
        text.contains("not billed: cloudflare-workers: 772 MB do not fit"),
        "{text}"
    );
}

#[test]
fn json_and_csv_have_exact_amounts() {
    let Some(text) = succeeds(&sample(&[
        "--provider",
        "aws-lambda",
        "--date",
        "2020-08",
        "--json",
    ])) else {
        return;
    };
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["bills"][0]["gross"], "28.634");
    assert_eq!(json["currency"], "USD");
    let csv = succeeds(&sample(&[
        "--provider",
        "aws-lambda",
        "--date",
        "2020-08",
        "--csv",
    ]))
    .expect("ours");
    assert!(
        csv.lines().nth(1).expect("a row").contains(",28.634,"),
        "{csv}"
    );
}

#[test]
fn another_currency_needs_a_rate() {
    let Some(text) = succeeds(&sample(&["--provider", "aws-lambda", "--rate", "EUR=0.5"])) else {
        return;
    };
    assert!(
        text.contains("EUR/MONTH") && text.contains("13.29"),
        "{text}"
    );
    let (code, _, stderr) = cost(&sample(&["--rate", "EUR"])).expect("ours");
    assert!(code != 0 && stderr.contains("invalid rate"), "{stderr}");
}

#[test]
fn sizes_are_compared_with_their_durations() {
    let args = [
        "--used",
        "400MB",
        "--provider",
        "aws-lambda",
        "--what-if",
        "512MB=3s,1024MB=1.6s",
    ];
    let Some(text) = succeeds(&args) else { return };
    assert!(text.contains("25.20") && text.contains("26.87"), "{text}");
    let all = succeeds(&[
        "--used",
        "100MB",
        "--duration",
        "1s",
        "--what-if",
        "128MB,2048MB",
    ])
    .expect("ours");
    assert!(!all.contains("\nazure-functions "), "{all}");
    for missing in [
        "not billed: azure-functions: memory in use is billed: there is no size to choose\n",
        "not billed: cloudflare-workers at 2048 MB: 2048 MB do not fit: the largest size is 128 MB\n",
    ] {
        assert!(all.contains(missing), "{missing}: {all}");
    }
}

/// A trace of 100 MB, then 400 MB, for half a second each, with a limit of 500 MB.
const TRACE: &str = "# elastic-mem trace 1\n\
    t_us,usage,anon,file,shmem,kernel,limit,high,cpu_us,refault,psi_some_us,ev_high,ev_oom,phase\n\
    0,104857600,,,,,524288000,,0,,,,,\n\
    500000,419430400,,,,,524288000,,,,,,,\n\
    1000000,0,,,,,524288000,,1000000,,,,,\n";

#[test]
fn a_size_can_be_compared_by_the_trace_measured_at_it() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("run.csv");
    fs::write(&file, TRACE).expect("write");
    let sizes = format!("512MB={},1024MB={}", file.display(), file.display());
    let Some(text) = succeeds(&["--provider", "aws-lambda", "--what-if", &sizes, "--csv"]) else {
        return;
    };
    let mut lines = text
        .lines()
        .filter(|line| line.contains(",as-billed,"))
        .map(|line| line.split(',').nth(4).expect("memory_bytes").to_owned());
    assert_eq!(lines.next().as_deref(), Some("536870912"), "{text}");
    assert_eq!(lines.next().as_deref(), Some("1073741824"), "{text}");
    let small = format!("256MB={}", file.display());
    let (code, _, stderr) = cost(&["--what-if", &small]).expect("ours");
    assert!(
        code == 1 && stderr.contains("run.csv: the peak of 400 MB is more than --what-if 256 MB"),
        "{stderr}"
    );
}

#[test]
fn a_trace_shows_four_ways_of_allocating_and_a_picture_is_drawn() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("run.csv");
    fs::write(&file, TRACE).expect("write");
    let path = file.to_string_lossy().into_owned();
    let Some(text) = succeeds(&["--trace", &path, "--provider", "aws-lambda"]) else {
        return;
    };
    for way in [
        "static, size",
        "static, exact peak",
        "along the hull",
        "along the grant",
    ] {
        assert!(text.contains(way), "{way}: {text}");
    }
    // 512 MB for 1 s; 100 and 400 MB for half a second each; the limit of 500 MB.
    let json = succeeds(&["--trace", &path, "--provider", "aws-lambda", "--json"]).expect("ours");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let csv = succeeds(&["--trace", &path, "--provider", "aws-lambda", "--csv"]).expect("ours");
    let sentence =
        succeeds(&["--trace", &path, "--provider", "aws-lambda", "--sentence"]).expect("ours");
    for (index, (id, name, megabytes)) in [
        ("static-size", "static, size of the provider", 400_u64),
        ("static-peak", "static, exact peak", 400),
        ("dynamic-hull", "dynamic, along the hull", 250),
        ("dynamic-grant", "dynamic, along the grant", 500),
    ]
    .into_iter()
    .enumerate()
    {
        let way = &json["bills"][0]["allocations"][index];
        let byte_ns = ((megabytes << 20) * 1_000_000_000).to_string();
        assert_eq!(
            (&way["allocation"], &way["byte_ns"]),
            (&id.into(), &byte_ns.clone().into())
        );
        let gross = way["gross"].as_str().expect("text");
        let line = csv
            .lines()
            .find(|line| line.contains(&format!(",{id},")))
            .unwrap_or_else(|| panic!("{id}: {csv}"));
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(
            cells.len(),
            csv.lines().next().expect("header").split(',').count()
        );
        assert_eq!((cells[6], cells[12]), (byte_ns.as_str(), gross), "{line}");
        assert!(sentence.contains(name), "{name}: {sentence}");
    }
    fs::write(&file, "# elastic-mem trace 1\nt_us\n").expect("write");
    let (code, _, stderr) = cost(&["--trace", &path]).expect("ours");
    assert!(
        code == 1 && stderr.contains("run.csv: line 2: want column"),
        "{stderr}"
    );
    let picture = folder
        .path()
        .join("cost.svg")
        .to_string_lossy()
        .into_owned();
    succeeds(&sample(&["--plot", &picture]));
    assert!(
        fs::read_to_string(&picture)
            .expect("picture")
            .ends_with("</svg>\n")
    );
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("own.toml");
    fs::write(&file, "schema = 7\nid = \"own\"\n[sources]\n").expect("write");
    let own = file.to_string_lossy().into_owned();
    let aws = "aws-lambda";
    let some = ["--used", "400MB", "--duration"];
    let cases: [(&[&str], &str); 17] = [
        (
            &["--used", "1TB", "--duration", "1s"],
            "1048576 MB are more than any of these providers has: the largest size is 32768 MB, of google-cloud-functions",
        ),
        (
            &["--what-if", "512MB=3ss"],
            "--what-if 3ss: no duration, such as 1.6s, and no trace: read 3ss: no such file",
        ),
        (
            &[
                "--used",
                "400MB",
                "--duration",
                "1s",
                "--allocated",
                "256MB",
            ],
            "--used 400 MB is more than --allocated 256 MB: a function cannot use more",
        ),
        (
            &[
                "--used",
                "400MB",
                "--duration",
                "1s",
                "--what-if",
                "512MB,256MB",
            ],
            "--used 400 MB is more than --what-if 256 MB",
        ),
        (&[some[0], some[1], some[2], "0s"], "the duration is zero"),
        (
            &["--used", "400MB", "--what-if", "512MB=0s"],
            "the duration is zero",
        ),
        (
            &["--used", "4MB", "--duration", "1s", "--bin", "1s"],
            "--bin is the width of the bins of a trace: give a --trace",
        ),
        (
            &[
                "--used",
                "4MB",
                "--duration",
                "1s",
                "--allocated",
                "5MB",
                "--what-if",
                "6MB",
            ],
            "cannot be used with '--what-if <LIST>'",
        ),
        (
            &["--used", "4MB", "--duration", "1s", "--requests", "-1"],
            "invalid value '-1' for '--requests <N>'",
        ),
        (
            &["--used", "-1", "--duration", "1s"],
            "invalid size: \"-1\" (want a number of bytes with an optional unit such as 64m)",
        ),
        (&["--used", "5MB", "--duration", "NaNs"], "invalid duration"),
        (&["--used", "5MB"], "--duration is missing"),
        (&["--duration", "1s"], "--used is missing"),
        (
            &["--used", "1MB", "--duration", "1s", "--provider", "nope"],
            "unknown provider",
        ),
        (
            &[
                "--used",
                "1MB",
                "--duration",
                "1s",
                "--provider",
                aws,
                "--date",
                "2019-01",
            ],
            "aws-lambda: no prices for 2019-01: those of memory begin with 2020-08",
        ),
        (
            &["--used", "1MB", "--duration", "1s", "--date", "2019"],
            "want YYYY-MM",
        ),
        (
            &["--used", "1MB", "--duration", "1s", "--providers", &own],
            "own.toml: schema: 7 is not 1",
        ),
    ];
    for (args, expected) in cases {
        let Some((code, _, stderr)) = cost(args) else {
            return;
        };
        assert!(code != 0 && stderr.contains(expected), "{args:?}: {stderr}");
    }
}

#[test]
fn a_trace_that_cannot_be_billed_is_one_clear_error() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("run.csv");
    let path = file.to_string_lossy().into_owned();
    let head: String = TRACE.split_inclusive('\n').take(2).collect();
    for (lines, more, expected) in [
        ("", "", "run.csv: the trace has no sample"),
        (
            "0,1,,,,,,,,,,,,\n",
            "",
            "run.csv: the trace has no duration",
        ),
        (
            "5,1,,,,,,,,,,,,\n5,2,,,,,,,,,,,,\n",
            "",
            "run.csv: the trace has no duration",
        ),
        (
            "0,,1,,,,,,,,,,,\n9,,1,,,,,,,,,,,\n",
            "",
            "run.csv: no sample has a value in column usage",
        ),
        (
            "0,9,,,,,,,,,,,,\n9,9,,,,,,,,,,,,\n",
            "8",
            "run.csv: the peak of 9 B is more than --allocated 8 B",
        ),
    ] {
        fs::write(&file, format!("{head}{lines}")).expect("write");
        let mut args = vec!["--trace", &path];
        if !more.is_empty() {
            args.extend(["--allocated", more]);
        }
        let Some((code, _, stderr)) = cost(&args) else {
            return;
        };
        assert!(
            code == 1 && stderr.contains(expected),
            "{lines:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
