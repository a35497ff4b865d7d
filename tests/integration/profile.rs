//! The command `profile`. Needs no root and no container.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cmd, Outcome, host, skip};

const HEADER: &str =
    "t_us,usage,anon,file,shmem,kernel,limit,high,cpu_us,refault,psi_some_us,ev_high,ev_oom,phase";

/// A store of its own, with the files of a test beside it.
struct Bench {
    folder: tempfile::TempDir,
}

/// `None` under another command than ours.
fn bench() -> Option<Bench> {
    if host::name_of(&host::our_program()) == "runc" {
        skip("runc has no profiles");
        return None;
    }
    let folder = tempfile::tempdir().expect("folder");
    let config = format!(
        "[profile]\nfolder = {:?}\nkeep-traces = 3\n",
        folder.path().join("store")
    );
    fs::write(folder.path().join("config.toml"), config).expect("config");
    Some(Bench { folder })
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("folder")).expect("folder");
        fs::write(&path, text).expect("write");
        path.to_string_lossy().into_owned()
    }

    fn command(&self, args: &[&str]) -> Cmd {
        self.verb("profile").args(args)
    }

    fn verb(&self, verb: &str) -> Cmd {
        Cmd::new(host::our_program())
            .arg("--config")
            .arg(self.path("config.toml"))
            // With a log file, the reason of a failure is on standard error as it is.
            .arg("--log")
            .arg(self.path("log"))
            .arg(verb)
    }

    fn run(&self, args: &[&str]) -> Outcome {
        self.command(args).output()
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.code, 0, "{out}");
        assert_eq!(out.stderr, "", "{out}");
        out.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        serde_json::from_str(&self.succeeds(&args)).expect("JSON")
    }

    /// The names of the runs that are kept of a function.
    fn runs(&self, function: &str) -> Vec<String> {
        let exported = self.succeeds(&["export", function]);
        let runs: Value = serde_json::from_str(&exported).expect("JSON");
        let digests = runs["digests"].as_array().expect("digests");
        let name = |digest: &Value| digest["run"].as_str().expect("name").to_owned();
        digests.iter().map(name).collect()
    }

    /// The reason of a failure.
    fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.code, 1, "{out}");
        assert_eq!(out.stdout, "", "{out}");
        out.stderr
    }

    /// A trace of ours in a file.
    fn trace(&self, run: &str, context: &str, mib: u64) -> String {
        self.write(&format!("traces/{run}.csv"), &trace(run, context, mib))
    }
}

/// A run of 100 ms; `context` is what it has beside its name.
fn trace(run: &str, context: &str, mib: u64) -> String {
    let mut text = format!(
        "# elastic-mem trace 1\n# context {{\"run\":\"{run}\",\"function\":\"default/thumb\"{context}}}\n{HEADER}\n"
    );
    for (at, bytes) in [(0, mib << 19), (50_000, mib << 20), (100_000, mib << 19)] {
        text += &format!("{at},{bytes},{bytes},0,0,0,,,{at},,,,,\n");
    }
    text + "# end {\"code\":0,\"oomKills\":0}\n"
}

/// A run of functracer with values of our own.
const FUNCTRACER: &str = "23:59:59.900,0\n23:59:59.961,5242880,9223372036854771712\n\
                          00:00:00.090,7340032,52428800\n00:00:00.150,,52428800\n00:00:00.202,0\n";

#[test]
fn the_verb_alone_asks_for_its_help() {
    let Some(bench) = bench() else { return };
    let help = bench.succeeds(&[]);
    assert!(
        help.contains("profile [OPTIONS] <COMMAND>") && help.contains("forget"),
        "{help}"
    );
    assert!(!help.contains("pause"), "{help}");
}

#[test]
fn kept_traces_are_drawn_by_the_name_of_their_function() {
    let Some(bench) = bench() else { return };
    let folder = bench.path("traces").to_string_lossy().into_owned();
    for number in 1..=4 {
        bench.trace(&format!("r{number}"), "", 10 * number);
    }
    bench.succeeds(&["import", &folder]);
    let plot = |args: &[&str]| bench.verb("plot").args(args).output();
    let drawn = |args: &[&str]| {
        let out = plot(args);
        assert_eq!((out.code, out.stderr.as_str()), (0, ""), "{out}");
        out.stdout
    };
    // The three newest are kept: the same picture as of their files.
    let files: Vec<String> = (2..=4).map(|n| format!("{folder}/r{n}.csv")).collect();
    let [r2, r3, r4] = [0, 1, 2].map(|n| files[n].as_str());
    for kind in ["hull", "shapes", "classes"] {
        assert_eq!(
            drawn(&[kind, "--svg", "--function", "default/thumb"]),
            drawn(&[kind, "--svg", r2, r3, r4]),
            "{kind}"
        );
    }
    assert_eq!(
        drawn(&["run", "--svg", "--function", "default/thumb"]),
        drawn(&["run", "--svg", r4])
    );
    let unknown = plot(&["hull", "--function", "default/thump"]);
    assert_eq!(unknown.code, 1, "{unknown}");
    assert!(unknown.stderr.contains("default/thumb"), "{unknown}");
    let exported = bench.succeeds(&["export", "default/thumb"]);
    bench.succeeds(&["forget", "default/thumb"]);
    let file = bench.write("exported.json", &exported);
    bench.succeeds(&["import", &file]);
    let none = plot(&["run", "--function", "default/thumb"]);
    assert_eq!(none.code, 1, "{none}");
    assert!(
        none.stderr.contains("no trace of default/thumb is kept"),
        "{none}"
    );
    let both = plot(&["run", r4, "--function", "default/thumb"]);
    assert_eq!(both.code, 1, "{both}");
}

#[test]
fn traces_become_a_profile() {
    let Some(bench) = bench() else { return };
    assert_eq!(bench.json(&["list"]), serde_json::json!([]));
    for number in 1..=4 {
        bench.trace(&format!("r{number}"), "", 10 * number);
    }
    let folder = bench.path("traces").to_string_lossy().into_owned();
    let table = bench.succeeds(&["import", &folder]);
    assert!(table.contains("default/thumb  4    0      4\n"), "{table}");
    let again = bench.json(&["import", &folder]);
    assert_eq!(
        (&again[0]["new"], &again[0]["known"]),
        (&0.into(), &4.into())
    );
    let list = bench.succeeds(&["list"]);
    assert!(
        list.contains("default/thumb  4     1        40.0 MB   0.0 MB    3 of 4\n"),
        "{list}"
    );
    let show = bench.json(&["show", "default/thumb"]);
    assert_eq!(show["classes"]["*"]["heldPeak"]["max"], 40 << 20);
    let text = bench.succeeds(&["show", "default/thumb"]);
    assert!(
        text.contains("RUNS      4\n") && text.contains("\n*      4     0     "),
        "{text}"
    );
    // The newest three of the configuration.
    let kept = fs::read_dir(bench.path("store/functions/default%2Fthumb/traces")).expect("traces");
    assert_eq!(kept.count(), 3);
    let verified = bench.succeeds(&["verify"]);
    assert!(verified.ends_with(" 0 problems\n"), "{verified}");
}

#[test]
fn the_files_of_the_published_tools_are_read_and_written() {
    let Some(bench) = bench() else { return };
    let trace = bench.write("autostats12-rawresults.csv", FUNCTRACER);
    let aux = bench.write("aux", "\n1048576\n3145728\n2097152\n");
    let hull = bench.write(
        "uhull.json",
        "{\"0.0\": 3, \"1.2000000000000002\": 9.5, \"1.3\": 0}",
    );
    let old_hull = bench.write("old.json", "{\"0.0\": 3, \"0.1\": 4}");
    let results = bench.write("x-results.dat", "2100  772 21  832  28.63 26.58   2.05\n");
    let function = ["--function", "default/f"];
    let import =
        |files: &[&str], more: &[&str]| bench.json(&[&["import"], files, &function, more].concat());
    let more = [
        "--class",
        "small",
        "--feature",
        "input-bytes=2048",
        "--feature",
        "pixels=4",
    ];
    assert_eq!(import(&[&trace], &more)[0]["incomplete"], 0);
    import(&[&hull, &old_hull, &results], &[]);
    assert!(
        bench
            .fails(&["import", &aux, "--function", "default/f"])
            .contains("--interval")
    );
    assert_eq!(import(&[&aux], &["--interval", "34ms"])[0]["kept"], 5);
    let show = bench.json(&["show", "default/f"]);
    assert_eq!(show["classes"]["*"]["heldPeak"]["max"], 772 << 20);
    assert_eq!(show["classes"]["small"]["heldPeak"]["max"], 7 << 20);
    let runs = bench.runs("default/f");
    assert!(
        runs.iter().all(|run| run.starts_with("00-import-")),
        "{runs:?}"
    );
    let functracer = [
        "export",
        "default/f",
        "--form",
        "functracer",
        "--class",
        "small",
    ];
    // Its trace is one of the newest three, or it is not kept.
    let out = bench.run(&functracer);
    if out.code == 0 {
        assert!(out.stdout.starts_with("00:00:00.000,0\n"), "{out}");
        assert!(
            out.stdout.contains("00:00:00.190,7340032,52428800\n"),
            "{out}"
        );
    } else {
        assert!(out.stderr.contains("no such trace"), "{out}");
    }
    let hull = bench.succeeds(&["export", "default/f", "--form", "uhull", "--class", "small"]);
    let hull: Value = serde_json::from_str(&hull).expect("JSON");
    let closing = hull.as_object().expect("object").values().next_back();
    assert_eq!(closing, Some(&Value::from(0.0)));
    assert!(hull["0.1"].as_f64().expect("MiB") >= 7.0, "{hull}");
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_imported() {
    let Some(bench) = bench() else { return };
    let good = bench.trace("r1", "", 5);
    for (name, text, reason) in [
        (
            "a.csv",
            trace("r2", "", 5).replace("\n50000,", "\nx,"),
            "a.csv: line 5: t_us",
        ),
        (
            "b.csv",
            "09:15:02.100,0\n09:15:02.2,x\n09:15:03,0\n".to_owned(),
            "b.csv: line 2: usage",
        ),
        (
            "c.json",
            "{\"0.0\": 1,\n\"0.1\": }".to_owned(),
            "c.json: line 2: no JSON",
        ),
        (
            "d.json",
            "{\"0.0\": \"x\"}".to_owned(),
            "d.json: key \"0.0\"",
        ),
        (
            "e.json",
            "{\"version\": 99, \"function\": \"a/b\"}".to_owned(),
            "version 99 is newer",
        ),
        (
            "f.dat",
            "1 2 3 4 5 6 7\n1 2 3\n".to_owned(),
            "f.dat: line 2: 3 columns",
        ),
        (
            "g.txt",
            "hello\n".to_owned(),
            "g.txt: no form of file that is known",
        ),
        (
            "h.csv",
            format!("# elastic-mem trace 1\n{HEADER}\n0,1,,,,,,,,,,,,\n"),
            "--function",
        ),
        (
            "i.csv",
            trace("r2", "", 5).replace(",\"function\"", ",\"functoin\""),
            "line 2: context",
        ),
        (
            "j.csv",
            "# elastic-mem trace 9\n".to_owned(),
            "j.csv: line 1",
        ),
        ("k.csv", String::new(), "k.csv: no form of file"),
    ] {
        let wrong = bench.write(name, &text);
        let stderr = bench.fails(&["import", &good, &wrong]);
        assert!(stderr.contains(reason), "{reason}: {stderr}");
    }
    let binary = bench.path("z.csv");
    fs::write(&binary, [0xff, 0xfe, b'\n']).expect("write");
    let stderr = bench.fails(&["import", &good, &binary.to_string_lossy()]);
    assert!(
        stderr.contains("z.csv") && stderr.contains("UTF-8"),
        "{stderr}"
    );
    assert!(
        bench
            .fails(&["import", "/nonexistent"])
            .contains("no such file")
    );
    let other = bench.trace("r2", "", 5);
    let stderr = bench.fails(&["import", &good, &other, "--run", "r3"]);
    assert!(
        stderr.contains("names one run, and there are 2"),
        "{stderr}"
    );
    assert_eq!(bench.json(&["list"]), serde_json::json!([]));
}

#[test]
fn what_one_host_knows_another_one_learns() {
    let Some(one) = bench() else { return };
    let other = bench().expect("ours");
    for (bench, numbers) in [(&one, 1..=3), (&other, 3..=5)] {
        for number in numbers {
            let file = bench.trace(&format!("r{number}"), "", number);
            bench.succeeds(&["import", &file]);
        }
    }
    let file = one.path("export.json").to_string_lossy().into_owned();
    one.succeeds(&["export", "default/thumb", "-o", &file]);
    let merged = other.json(&["merge", &file]);
    assert_eq!(
        (&merged[0]["new"], &merged[0]["known"]),
        (&2.into(), &1.into())
    );
    // The store itself, in the other direction.
    let store = other.path("store").to_string_lossy().into_owned();
    let merged = one.json(&["merge", &store]);
    assert_eq!(merged[0]["kept"], 5);
    let profile = |bench: &Bench| bench.succeeds(&["show", "default/thumb", "--json"]);
    assert_eq!(profile(&one), profile(&other));
    // A trace is no exported file.
    let trace = one.trace("r9", "", 1);
    assert!(
        one.fails(&["merge", &file, &trace])
            .contains("r9.csv: no such document")
    );
    // What was exported can be imported under another name.
    other.succeeds(&["import", &file, "--function", "default/copy"]);
    assert_eq!(other.json(&["list"]).as_array().expect("list").len(), 2);
}

#[test]
fn classes_are_learned_from_features() {
    let Some(bench) = bench() else { return };
    for number in 0..24_u64 {
        let (pixels, mib) = if number % 2 == 0 {
            (1000 + number, 10)
        } else {
            (900_000 + number, 200)
        };
        let bytes = 5000 + number * 37 % 11;
        let features = format!(",\"features\":{{\"pixels\":{pixels},\"input-bytes\":{bytes}}}");
        bench.trace(&format!("r{number:02}"), &features, mib);
    }
    let folder = bench.path("traces").to_string_lossy().into_owned();
    bench.succeeds(&["import", &folder]);
    let bins = bench.json(&["bins", "default/thumb"]);
    assert_eq!(bins[0]["feature"], "pixels");
    assert_eq!(bins[0]["edges"].as_array().expect("edges").len(), 1);
    let text = bench.succeeds(&["bins", "default/thumb", "--feature", "pixels"]);
    assert!(text.contains("pixels   yes   2        0.0 %"), "{text}");
    assert!(
        text.contains("\npixels<=") && text.contains("\npixels>"),
        "{text}"
    );
    let stderr = bench.fails(&["bins", "default/thumb", "--feature", "pixel"]);
    assert!(stderr.contains("did you mean \"pixels\"?"), "{stderr}");
}

#[test]
fn a_profile_can_be_billed() {
    let Some(bench) = bench() else { return };
    for (run, class, mib) in [
        ("r1", "small", 100),
        ("r2", "small", 150),
        ("r3", "large", 300),
    ] {
        let context = format!(r#","class":"{class}""#);
        let file = bench.trace(run, &context, mib);
        bench.succeeds(&["import", &file]);
    }
    let bill = |more: &[&str]| {
        let args = [
            "--provider",
            "aws-lambda",
            "--function",
            "default/thumb",
            "--json",
        ];
        let outcome = bench.verb("cost").args(args).args(more).output();
        assert_eq!(outcome.code, 0, "{outcome}");
        let report: Value = serde_json::from_str(&outcome.stdout).expect("json");
        report["bills"][0]["memory_bytes"].as_u64().expect("size")
    };
    assert_eq!(bill(&[]), 300 << 20);
    assert_eq!(bill(&["--class", "small"]), 150 << 20);
    for (args, expected) in [
        (
            vec!["--function", "default/thum"],
            "did you mean \"default/thumb\"?",
        ),
        (
            vec!["--function", "default/thumb", "--class", "smal"],
            "did you mean \"small\"?",
        ),
        (vec!["--class", "small"], "--function"),
    ] {
        let outcome = bench.verb("cost").args(&args).output();
        assert_eq!(outcome.code, 1, "{args:?}: {outcome}");
        assert!(outcome.stderr.contains(expected), "{args:?}: {outcome}");
    }
}

#[test]
fn forgetting_is_exact() {
    let Some(bench) = bench() else { return };
    for number in 1..=2 {
        let file = bench.trace(&format!("a{number}"), ",\"class\":\"small\"", 5);
        bench.succeeds(&["import", &file]);
        let file = bench.trace(&format!("b{number}"), "", 50);
        bench.succeeds(&["import", &file]);
    }
    for (args, reason) in [
        (vec!["--class", "smal"], "did you mean \"small\"?"),
        (vec!["--class", "*"], "all of default/thumb is forgotten"),
        (vec!["--run", "b1", "--run", "b9"], "has no run \"b9\""),
    ] {
        let stderr = bench.fails(&[&["forget", "default/thumb"], args.as_slice()].concat());
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert_eq!(bench.json(&["list"])[0]["runs"], 4);
    let out = bench.succeeds(&["forget", "default/thumb", "--run", "b1"]);
    assert_eq!(out, "default/thumb: 1 run forgotten\n");
    let out = bench.succeeds(&["forget", "default/thumb", "--class", "small"]);
    assert_eq!(out, "default/thumb: 2 runs forgotten\n");
    assert_eq!(bench.runs("default/thumb"), ["b2"]);
    bench.succeeds(&["forget", "default/thumb"]);
    assert_eq!(bench.json(&["list"]), serde_json::json!([]));
    assert!(
        bench
            .fails(&["forget", "default/thumb"])
            .contains("knows no function")
    );
}

#[test]
fn a_function_that_is_not_known_is_an_error_with_the_nearest_name() {
    let Some(bench) = bench() else { return };
    let file = bench.trace("r1", "", 5);
    bench.succeeds(&["import", &file]);
    for args in [
        ["show", "default/thump"].as_slice(),
        &["bins", "defualt/thumb"],
        &["forget", "thumb"],
        &["export", "default/thum"],
        &["export", "openfaas/thumb", "--form", "csv"],
        &["export", "default/thumbs", "--form", "uhull"],
    ] {
        let stderr = bench.fails(args);
        assert!(
            stderr.contains("did you mean \"default/thumb\"?"),
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn traces_are_exported_to_a_file_or_a_folder() {
    let Some(bench) = bench() else { return };
    for number in 1..=2 {
        let file = bench.trace(&format!("r{number}"), "", number);
        bench.succeeds(&["import", &file]);
    }
    fn export<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["export", "default/thumb", "--form", "csv"], more].concat()
    }
    assert!(bench.fails(&export(&[])).contains("there are 2 traces"));
    let one = bench.succeeds(&export(&["--run", "r1"]));
    assert_eq!(one, trace("r1", "", 1));
    let folder = bench.path("out");
    bench.succeeds(&export(&["-o", &folder.to_string_lossy()]));
    assert_eq!(
        fs::read_to_string(folder.join("r2.csv")).expect("file"),
        trace("r2", "", 2)
    );
    assert!(
        bench
            .fails(&export(&["--run", "r3"]))
            .contains("no trace of default/thumb is kept of run")
    );
    let out = bench.run(&["export", "default/thumb", "-o", "/nonexistent/x"]);
    assert!(
        out.code == 1 && out.stderr.contains("write /nonexistent/x"),
        "{out}"
    );
}

#[test]
fn verify_tells_by_its_exit_code_and_changes_nothing_unless_asked() {
    let Some(bench) = bench() else { return };
    let file = bench.trace("r1", "", 5);
    bench.succeeds(&["import", &file]);
    let profile = bench.path("store/functions/default%2Fthumb/profile.json");
    fs::write(&profile, "{").expect("write");
    let list = bench.succeeds(&["list"]);
    assert!(list.contains("profile.json: no such document"), "{list}");
    assert!(
        bench
            .fails(&["show", "default/thumb"])
            .contains("profile.json")
    );
    let out = bench.run(&["verify"]);
    assert_eq!(out.code, 1, "{out}");
    assert!(
        out.stdout
            .contains("functions/default%2Fthumb/profile.json: no such document"),
        "{out}"
    );
    assert_eq!(fs::read_to_string(&profile).expect("file"), "{");
    let out = bench.run(&["verify", "--repair"]);
    assert_eq!(out.code, 0, "{out}");
    assert!(out.stdout.contains("(repaired)"), "{out}");
    assert_eq!(bench.runs("default/thumb"), ["r1"]);
}

#[test]
fn a_store_that_somebody_else_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let Some(bench) = bench() else { return };
    let store = bench.path("store");
    fs::create_dir(&store).expect("folder");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o777)).expect("chmod");
    assert!(
        bench
            .fails(&["list"])
            .contains("can be written by other users")
    );
    fs::remove_dir(&store).expect("remove");
    std::os::unix::fs::symlink("/tmp", &store).expect("link");
    let file = bench.trace("r1", "", 5);
    assert!(bench.fails(&["import", &file]).contains("symbolic link"));
}

#[test]
fn no_run_is_lost_when_many_processes_add_at_once() {
    let Some(bench) = bench() else { return };
    let files: Vec<String> = (10..42)
        .map(|number| bench.trace(&format!("r{number}"), "", number))
        .collect();
    let running: Vec<_> = files
        .iter()
        .map(|file| bench.command(&["import", file]).spawn())
        .collect();
    for command in running {
        let out = command.wait();
        assert_eq!(out.code, 0, "{out}");
    }
    assert_eq!(bench.json(&["list"])[0]["runs"], 32);
    assert!(bench.succeeds(&["verify"]).ends_with(" 0 problems\n"));
}

/// Killed at moments that are spread over its life.
#[test]
fn a_killed_import_leaves_a_store_that_is_whole() {
    let Some(bench) = bench() else { return };
    let sure = bench.trace("r00", "", 5);
    bench.succeeds(&["import", &sure]);
    let mut killed = 0;
    for step in 0..60_u64 {
        let file = bench.trace(&format!("r{}", 10 + step), "", 5);
        let mut running = bench.command(&["import", &file]).spawn();
        std::thread::sleep(Duration::from_micros(step * 400));
        running.child.kill().expect("kill");
        killed += u32::from(running.wait().code == 128 + 9);
        assert_eq!(bench.runs("default/thumb")[0], "r00", "{step}");
    }
    assert!(killed > 0, "nothing was killed");
    // What was interrupted may have left a temporary file, or learned less than is known.
    bench.succeeds(&["verify", "--repair"]);
    assert!(bench.succeeds(&["verify"]).ends_with(" 0 problems\n"));
    let all: Vec<String> = (10..70)
        .map(|number| format!("traces/r{number}.csv"))
        .collect();
    for file in &all {
        assert!(Path::new(&bench.path(file)).exists());
    }
    let folder = bench.path("traces").to_string_lossy().into_owned();
    assert_eq!(bench.json(&["import", &folder])[0]["kept"], 61);
}
