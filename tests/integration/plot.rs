//! The command `plot`. Needs no root and no container.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Cmd, Outcome, host, skip};

/// Runs `plot`; `None` under another command than ours.
fn plot(args: &[&str]) -> Option<Outcome> {
    let program = host::our_program();
    if host::name_of(&program) == "runc" {
        skip("runc has no plot");
        return None;
    }
    let command = Cmd::new(program).arg("plot").args(args);
    // What the terminal form looks at.
    Some(
        command
            .env("LC_ALL", "C.UTF-8")
            .env("COLUMNS", "80")
            .output(),
    )
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The traces whose names begin so, in the order of the names.
fn traces(prefix: &str) -> Vec<String> {
    let folder = data().join("traces");
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("folder")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{prefix}");
    names
}

fn all<'a>(args: &[&'a str], traces: &'a [String]) -> Vec<&'a str> {
    args.iter()
        .copied()
        .chain(traces.iter().map(String::as_str))
        .collect()
}

/// Compares with a file of `tests/data/plots`; `ELASTIC_MEM_BLESS=1` writes it.
fn is_as_before(name: &str, args: &[&str]) {
    let Some(out) = plot(args) else { return };
    assert_eq!(out.code, 0, "{args:?}: {}", out.stderr);
    let file = data().join("plots").join(name);
    if std::env::var_os("ELASTIC_MEM_BLESS").is_some() {
        fs::write(&file, &out.stdout).expect("write");
    }
    let before = fs::read_to_string(&file).expect("golden file");
    assert!(
        out.stdout == before,
        "{name} has changed; look at it, then ELASTIC_MEM_BLESS=1"
    );
}

#[test]
fn pictures_are_as_before() {
    let shapes = ["dna", "pagerank", "sleep", "stages", "thumb", "video"];
    let shapes: Vec<String> = shapes.iter().flat_map(|name| traces(name)).collect();
    let cases: [(&str, &[&str], Vec<String>); 6] = [
        (
            "hull.svg",
            &[
                "hull",
                "--bin",
                "40ms",
                "--lead",
                "40ms",
                "--provider",
                "aws-lambda",
                "--date",
                "2020-08",
            ],
            traces("dna"),
        ),
        ("shapes.svg", &["shapes"], shapes),
        ("classes.svg", &["classes"], traces("scale")),
        ("inputs.svg", &["inputs"], traces("scale")),
        ("run.svg", &["run"], traces("granted")),
        ("run.txt", &["run", "--terminal"], traces("granted")),
    ];
    for (name, args, traces) in &cases {
        is_as_before(name, &all(args, traces));
    }
}

#[test]
fn the_ending_of_the_file_says_the_form() {
    let folder = tempfile::tempdir().expect("folder");
    let trace = &traces("granted")[0];
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (svg, png, other) = (file("a.svg"), file("a.PNG"), file("a.txt"));
    let Some(out) = plot(&["run", trace, "-o", &svg]) else {
        return;
    };
    assert_eq!((out.code, out.stdout.as_str()), (0, ""), "{}", out.stderr);
    assert!(fs::read_to_string(&svg).expect("svg").ends_with("</svg>\n"));

    let succeeds = |args: &[&str]| {
        let out = plot(args).expect("ours");
        assert_eq!(out.code, 0, "{args:?}: {}", out.stderr);
    };
    succeeds(&["run", trace, "-o", &png, "--dark"]);
    let image = fs::read(&png).expect("png");
    assert_eq!(&image[1..4], b"PNG");
    assert_eq!(&image[16..20], 1800_u32.to_be_bytes());

    let out = plot(&["run", trace, "-o", &other]).expect("ours");
    assert_eq!(out.code, 1);
    assert!(
        out.stderr.contains("ends neither in .svg nor in .png"),
        "{}",
        out.stderr
    );
    succeeds(&[
        "run",
        trace,
        "-o",
        &other,
        "--terminal",
        "--title",
        "My run",
    ]);
    assert!(
        fs::read_to_string(&other)
            .expect("text")
            .starts_with("My run\n")
    );
    // Nothing temporary stays.
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 3);
}

#[test]
fn a_file_is_replaced_as_a_whole_and_a_device_is_not_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let trace = &traces("granted")[0];
    let (target, link) = (
        folder.path().join("old.svg"),
        folder.path().join("link.svg"),
    );
    fs::write(&target, "old").expect("write");
    std::os::unix::fs::symlink(&target, &link).expect("link");
    let reader = fs::File::open(&target).expect("open");
    let Some(out) = plot(&["run", trace, "-o", &link.to_string_lossy()]) else {
        return;
    };
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(link.is_symlink());
    assert!(
        fs::read_to_string(&target)
            .expect("svg")
            .ends_with("</svg>\n")
    );
    assert_eq!(std::io::read_to_string(reader).expect("read"), "old");

    let null = folder.path().join("null.svg");
    std::os::unix::fs::symlink("/dev/null", &null).expect("link");
    let out = plot(&["run", trace, "-o", &null.to_string_lossy()]).expect("ours");
    assert_eq!(out.code, 0, "{}", out.stderr);
    use std::os::unix::fs::FileTypeExt;
    let kind = fs::metadata("/dev/null").expect("null").file_type();
    assert!(kind.is_char_device());

    let missing = folder.path().join("none/a.svg");
    let out = plot(&["run", trace, "-o", &missing.to_string_lossy()]).expect("ours");
    assert_eq!(out.code, 1);
    assert!(
        out.stderr.contains("none/a.svg: no such file"),
        "{}",
        out.stderr
    );
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let header = fs::read_to_string(&traces("granted")[0]).expect("trace");
    let mut lines = header.lines();
    let head: Vec<&str> = lines.by_ref().take(3).collect();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("write");
        path.to_string_lossy().into_owned()
    };
    let empty = write("empty.csv", &format!("{}\n", head.join("\n")));
    let broken = write(
        "broken.csv",
        &format!("{}\n0,x,,,,,,,,,,,,\n", head.join("\n")),
    );
    let only_anon = write(
        "anon.csv",
        &format!("{}\n0,,5,,,,,,,,,,,\n9,,5,,,,,,,,,,,\n", head.join("\n")),
    );
    let only_usage = write(
        "usage.csv",
        &format!("{}\n0,5,,,,,,,,,,,,\n9,5,,,,,,,,,,,,\n", head.join("\n")),
    );
    let missing = folder
        .path()
        .join("missing.csv")
        .to_string_lossy()
        .into_owned();
    let (thumb, dna) = (&traces("thumb")[0], &traces("dna")[0]);
    let cases: [(&[&str], &str); 11] = [
        (&["hull", &missing], "missing.csv: no such file"),
        (&["hull", &broken], "broken.csv: line 4: usage: "),
        (&["hull", &empty], "empty.csv: the trace has no sample"),
        (
            &["run", &empty],
            "empty.csv: no sample has a value in column usage",
        ),
        (
            &["run", &only_anon],
            "anon.csv: no sample has a value in column usage",
        ),
        (
            &["shapes", dna, &only_usage],
            "usage.csv: no sample has a value in column anon",
        ),
        (&["hull", thumb, dna], "this picture is of one function"),
        (&["inputs", thumb], "(known: none)"),
        (
            &["hull", thumb, "--bin", "30ms"],
            "bins cannot be 30ms wide",
        ),
        (&["hull", thumb, "--provider", "nope"], "unknown provider"),
        (&["run", dna, "--svg", "--dark"], "--dark is for PNG"),
    ];
    for (args, expected) in cases {
        let Some(out) = plot(args) else { return };
        assert_eq!(out.code, 1, "{args:?}");
        assert!(out.stderr.contains(expected), "{args:?}: {}", out.stderr);
        assert_eq!(out.stdout, "", "{args:?}");
    }
}
