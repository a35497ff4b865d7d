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
}

#[test]
fn a_trace_shows_four_ways_of_allocating_and_a_picture_is_drawn() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("run.csv");
    let header = "t_us,usage,anon,file,shmem,kernel,limit,high,cpu_us,refault,psi_some_us,ev_high,ev_oom,phase";
    let text = format!(
        "# elastic-mem trace 1\n{header}\n0,104857600,,,,,524288000,,0,,,,,\n\
         500000,419430400,,,,,524288000,,,,,,,\n1000000,0,,,,,524288000,,1000000,,,,,\n"
    );
    fs::write(&file, text).expect("write");
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
    let cases: [(&[&str], &str); 8] = [
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
            "no memory value for 2019-01; the first known is of 2020-08",
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
