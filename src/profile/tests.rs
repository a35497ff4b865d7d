//! Tests of the store as a whole, and what tests of its parts need.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::spool::SPOOL;
use super::store::CSV;
use super::{Forget, Store, StoreError, Taken};
use crate::model::profile::{BinWidth, Digest, Profile};
use crate::model::trace::Trace;
use crate::model::{Bytes, ClassName, FunctionKey};
use crate::policy::learn;

/// A store that keeps three traces.
pub(super) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("store"), 3);
    (dir, store)
}

pub(super) fn function() -> FunctionKey {
    "default/f".parse().unwrap()
}

/// A run of `mib` MiB over 100 ms.
pub(super) fn text(function: &str, run: &str, mib: u64) -> String {
    let context = serde_json::json!({"function": function, "run": run});
    let context = serde_json::from_value(context).unwrap();
    let mut text = Trace::header(Some(&context), &[]);
    for (at, bytes) in [(0, mib << 19), (50_000, mib << 20), (100_000, mib << 19)] {
        text += &format!("{at},{bytes},{bytes},0,0,0,,,{at},,,,,\n");
    }
    text + "# end {\"code\":0}\n"
}

/// A file in the spool with its writer.
pub(super) struct Spooled {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

pub(super) fn write(store: &Store, run: &str, text: &str) -> Spooled {
    let spool = Folder::make_root(store.root())
        .unwrap()
        .make(SPOOL)
        .unwrap();
    let path = spool.path().join(format!("{run}{CSV}"));
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    file.try_lock().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Spooled { file, path }
}

/// Writes a trace to its end and takes it in.
pub(super) fn run(store: &Store, function: &str, run: &str, mib: u64) -> super::Result<Taken> {
    let spooled = write(store, run, &text(function, run, mib));
    drop(spooled.file);
    // What another test forks holds our lock, too, until its program begins.
    for _ in 0..100 {
        match store.take_in(&spooled.path) {
            Err(StoreError::Busy(_)) => std::thread::sleep(std::time::Duration::from_millis(5)),
            done => return done,
        }
    }
    store.take_in(&spooled.path)
}

/// A sweep of another thread may have been quicker, or be at it.
pub(super) fn taken_by_somebody(taken: super::Result<Taken>) {
    match taken {
        Ok(_) | Err(StoreError::Busy(_)) => {}
        Err(err) => panic!("{err}"),
    }
}

/// The names in a folder of the store.
pub(super) fn names(store: &Store, folder: &str) -> Vec<String> {
    Folder::root(&store.root().join(folder))
        .unwrap()
        .unwrap()
        .names()
        .unwrap()
}

fn of(store: &Store, file: &str) -> PathBuf {
    store.root().join("functions/default%2Ff").join(file)
}

/// A store with three runs of [`function`].
fn learned() -> (tempfile::TempDir, Store, Profile) {
    let (dir, store) = store();
    for number in 1..=3 {
        run(&store, "default/f", &format!("r{number}"), number).unwrap();
    }
    let profile = store.lookup(&function()).unwrap();
    (dir, store, profile)
}

/// What stood in the log while something was done.
fn warnings(action: impl FnOnce()) -> Vec<String> {
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    struct Lines(Arc<Mutex<Vec<String>>>);
    struct Message<'a>(&'a mut String);
    impl tracing::field::Visit for Message<'_> {
        fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            *self.0 += &format!("{value:?}");
        }
    }
    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            if *event.metadata().level() == tracing::Level::WARN {
                let mut line = String::new();
                event.record(&mut Message(&mut line));
                self.0.lock().unwrap().push(line);
            }
        }
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::registry().with(Lines(Arc::clone(&lines)));
    tracing::subscriber::with_default(subscriber, action);
    let lines = lines.lock().unwrap();
    lines.clone()
}

#[test]
fn a_profile_that_cannot_be_used_is_set_aside_with_one_warning() {
    let good = {
        let (_dir, store, _) = learned();
        fs::read_to_string(of(&store, "profile.json")).unwrap()
    };
    for (wrong, reason) in [
        (good[..good.len() / 2].to_owned(), "EOF"),
        (String::new(), "EOF"),
        ("\u{0}".repeat(4096), "expected value"),
        (
            good.replace("\"version\":1", "\"version\":2"),
            "version 2 is newer",
        ),
        (
            good.replace("default/f", "default/g"),
            "is about function default/g",
        ),
        (
            good.replace("\"heldPeak\"", "\"heldpeak\""),
            "missing field `heldPeak`",
        ),
        (
            "{\"name\": \"somebody's\"}".to_owned(),
            "missing field `version`",
        ),
    ] {
        let (_dir, store, profile) = learned();
        fs::write(of(&store, "profile.json"), &wrong).unwrap();
        let lines = warnings(|| {
            assert_eq!(store.lookup(&function()), None);
            assert_eq!(store.lookup(&function()), None);
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(reason), "{reason}: {lines:?}");
        assert_eq!(
            fs::read_to_string(of(&store, "profile.json.bad-1")).unwrap(),
            wrong
        );
        // The next run brings it back.
        run(&store, "default/f", "r3", 3).unwrap();
        assert_eq!(store.lookup(&function()), Some(profile));
    }
}

#[test]
fn few_unusable_profiles_are_kept() {
    let (_dir, store, _) = learned();
    for number in 0..9 {
        fs::write(of(&store, "profile.json"), number.to_string()).unwrap();
        assert_eq!(store.lookup(&function()), None);
    }
    let bad: Vec<String> = names(&store, "functions/default%2Ff")
        .into_iter()
        .filter(|name| name.contains("bad"))
        .collect();
    assert_eq!(
        bad,
        [
            "profile.json.bad-1",
            "profile.json.bad-2",
            "profile.json.bad-3"
        ]
    );
    assert_eq!(fs::read_to_string(of(&store, &bad[2])).unwrap(), "8");
}

#[test]
fn links_and_what_others_can_write_are_no_profiles() {
    let (dir, store, profile) = learned();
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(of(&store, "profile.json"), &elsewhere).unwrap();
    symlink(&elsewhere, of(&store, "profile.json")).unwrap();
    let lines = warnings(|| assert_eq!(store.lookup(&function()), None));
    assert!(lines[0].contains("symbolic link"), "{lines:?}");
    fs::rename(&elsewhere, of(&store, "profile.json")).unwrap();
    assert_eq!(store.lookup(&function()), Some(profile));
    let everybody = PermissionsExt::from_mode(0o666);
    fs::set_permissions(of(&store, "profile.json"), everybody).unwrap();
    assert_eq!(store.lookup(&function()), None);
    // A folder of the way.
    let (dir, store, _) = learned();
    let functions = store.root().join("functions");
    fs::rename(&functions, dir.path().join("functions")).unwrap();
    symlink(dir.path().join("functions"), &functions).unwrap();
    let lines = warnings(|| {
        assert_eq!(store.lookup(&function()), None);
        assert_eq!(store.lookup(&function()), None);
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(matches!(
        run(&store, "default/f", "r4", 4),
        Err(StoreError::NotOurs { .. })
    ));
    assert!(store.root().join("spool/r4.csv").exists());
}

#[test]
fn a_lookup_waits_for_no_writer() {
    let (_dir, store, profile) = learned();
    let (_folder, lock) = store.locked(&function()).unwrap();
    assert_eq!(store.lookup(&function()), Some(profile.clone()));
    // What is wrong is the writer's to replace.
    let good = fs::read(of(&store, "profile.json")).unwrap();
    fs::write(of(&store, "profile.json"), "x").unwrap();
    assert_eq!(store.lookup(&function()), None);
    assert!(of(&store, "profile.json").exists());
    drop(lock);
    fs::write(of(&store, "profile.json"), good).unwrap();
    assert_eq!(store.lookup(&function()), Some(profile));
}

#[test]
fn digests_that_cannot_be_used_are_made_anew_from_the_traces() {
    let (_dir, store, _) = learned();
    fs::write(of(&store, "runs.json"), "x").unwrap();
    let lines = warnings(|| {
        run(&store, "default/f", "r4", 4).unwrap();
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(of(&store, "runs.json.bad-1").exists());
    assert_eq!(
        store.lookup(&function()).unwrap().classes[&ClassName::all()].runs,
        4
    );
}

fn digest(run: &str, class: Option<&str>, mib: u64) -> Digest {
    let mut trace: Trace = text("default/f", run, mib).parse().unwrap();
    let context = trace.context.as_mut().unwrap();
    context.class = class.map(|class| class.parse().unwrap());
    learn::digest(&trace, BinWidth::default()).unwrap()
}

#[test]
fn added_runs_count_once_and_come_in_any_order() {
    let runs = |numbers: &[u64]| -> Vec<Digest> {
        numbers
            .iter()
            .map(|n| digest(&format!("r{n}"), None, *n))
            .collect()
    };
    let (_dir, one) = store();
    let added = one.add(&function(), runs(&[1, 2, 3]), &[]).unwrap();
    assert_eq!((added.new, added.known, added.kept), (3, 0, 3));
    let added = one.add(&function(), runs(&[3, 4]), &[]).unwrap();
    assert_eq!((added.new, added.known, added.kept), (1, 1, 4));
    let (_dir, other) = store();
    other.add(&function(), runs(&[4, 3]), &[]).unwrap();
    other.add(&function(), runs(&[2, 1, 3]), &[]).unwrap();
    assert_eq!(one.lookup(&function()), other.lookup(&function()));
    assert_eq!(
        one.runs(&function()).unwrap(),
        other.runs(&function()).unwrap()
    );
}

#[test]
fn forgetting_is_exact() {
    let (_dir, store, _) = learned();
    let given = vec![
        digest("s1", Some("small"), 9),
        digest("s2", Some("small"), 8),
    ];
    store.add(&function(), given, &[]).unwrap();
    let forget = |what| store.forget(&function(), &what).unwrap();
    let classes = || store.lookup(&function()).unwrap().classes;
    let small: ClassName = "small".parse().unwrap();
    assert!(classes().contains_key(&small));
    assert_eq!(forget(Forget::Class(small.clone())), 2);
    assert!(!classes().contains_key(&small));
    assert_eq!(forget(Forget::Runs(["r3".parse().unwrap()].into())), 1);
    assert_eq!(
        classes()[&ClassName::all()].held_peak.max,
        Bytes::new(2 << 20)
    );
    // Neither its digest nor its trace brings it back.
    fs::remove_file(of(&store, "runs.json")).unwrap();
    run(&store, "default/f", "r2", 2).unwrap();
    assert_eq!(
        store.lookup(&function()).unwrap().classes[&ClassName::all()].runs,
        2
    );
    assert_eq!(forget(Forget::All), 2);
    assert_eq!(store.lookup(&function()), None);
    assert_eq!(names(&store, "functions"), [""; 0]);
    let unknown = store.forget(&function(), &Forget::All);
    assert!(matches!(unknown, Err(StoreError::UnknownFunction(_))));
}

#[test]
fn what_is_in_the_spool_does_not_come_back_after_it_was_forgotten() {
    let (_dir, store, _) = learned();
    drop(write(&store, "r4", &text("default/f", "r4", 4)));
    assert_eq!(store.forget(&function(), &Forget::All).unwrap(), 4);
    assert_eq!(store.sweep_spool().unwrap(), 0);
    assert_eq!(store.lookup(&function()), None);
}

#[test]
fn a_store_that_is_whole_has_no_findings() {
    let (_dir, store, _) = learned();
    let _writer = write(&store, "r9", "");
    // Of `elastic-mem trace`, and not looked at.
    std::fs::create_dir(store.root().join("tracing")).unwrap();
    let findings = store.verify(false).unwrap();
    assert_eq!(findings.findings, []);
    // Three traces with their folder, two documents and the lock; the function and the spooled file.
    assert_eq!(findings.checked, 9);
    assert_eq!(
        Store::new("/nonexistent/store", 1).verify(true).unwrap(),
        Default::default()
    );
}

#[test]
fn verify_finds_what_is_wrong_and_repairs_what_it_can() {
    /// A file, what is done to it, and what is then wrong.
    type Break = (&'static str, fn(&Path), &'static str);
    let breaks: [Break; 12] = [
        (
            "functions/default%2Ff/profile.json",
            |f| fs::write(f, "{").unwrap(),
            "EOF",
        ),
        (
            "functions/default%2Ff/profile.json",
            |f| fs::remove_file(f).unwrap(),
            "is not there",
        ),
        (
            "functions/default%2Ff/profile.json",
            |f| {
                let text = fs::read_to_string(f).unwrap();
                fs::write(f, text.replace("\"runs\":3", "\"runs\":4")).unwrap();
            },
            "is not what its runs teach",
        ),
        (
            "functions/default%2Ff/runs.json",
            |f| fs::write(f, "{").unwrap(),
            "EOF",
        ),
        (
            "functions/default%2Ff/runs.json",
            |f| fs::remove_file(f).unwrap(),
            "is not there",
        ),
        (
            "functions/default%2Ff/.new-runs.json",
            |f| fs::write(f, "{").unwrap(),
            "interrupted",
        ),
        (
            "functions/default%2Ff/runs.json.bad-1",
            |f| fs::write(f, "{").unwrap(),
            "set aside",
        ),
        (
            "functions/default%2Ff/traces/r2.csv",
            |f| fs::write(f, "x").unwrap(),
            "line 1",
        ),
        (
            "functions/default%2Ff/traces/r0.csv",
            |f| fs::write(f, text("default/g", "r0", 1)).unwrap(),
            "is about function default/g",
        ),
        (
            "functions/default%2Ff/traces/r0.csv",
            |f| fs::write(f, text("default/f", "r7", 1)).unwrap(),
            "is of run r7, whose file is r7.csv",
        ),
        (
            "functions/.gone-default%2Fg",
            |f| fs::create_dir(f).unwrap(),
            "being forgotten",
        ),
        (
            "spool/r3.csv",
            |f| fs::write(f, text("default/f", "r3", 3)).unwrap(),
            "writer that is gone",
        ),
    ];
    for (file, damage, problem) in breaks {
        let (_dir, store, profile) = learned();
        fs::create_dir_all(store.root().join("spool")).unwrap();
        damage(&store.root().join(file));
        let only = |repair: bool| {
            let findings = store.verify(repair).unwrap().findings;
            let [finding] = findings
                .try_into()
                .unwrap_or_else(|all| panic!("{file}: {all:?}"));
            assert_eq!(finding.path, store.root().join(file), "{problem}");
            assert!(finding.problem.contains(problem), "{}", finding.problem);
            assert_eq!(finding.repaired, repair);
        };
        only(false);
        only(false);
        only(true);
        // What was set aside is removed by the second one.
        store.verify(true).unwrap();
        assert_eq!(store.verify(false).unwrap().findings, [], "{file}");
        assert_eq!(
            store.lookup(&function()),
            Some(profile),
            "{file}: {problem}"
        );
    }
}

#[test]
fn strangers_in_the_store_are_named_and_stay() {
    let (_dir, store, _) = learned();
    for file in ["x", "functions/x~y", "functions/default%2Ff/x", "spool/x"] {
        fs::create_dir_all(store.root().join(file)).unwrap();
    }
    for repair in [true, false] {
        let findings = store.verify(repair).unwrap().findings;
        assert_eq!(findings.len(), 4, "{findings:?}");
        assert!(findings.iter().all(|finding| !finding.repaired));
    }
}

/// Needs a file system of its own, as root cannot be kept from writing by modes.
#[test]
fn a_store_that_is_full_or_read_only_loses_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = |flags, size: &str| {
        let options = format!("size={size}");
        nix::mount::mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )
    };
    use nix::mount::MsFlags;
    if mount(MsFlags::empty(), "1m").is_err() {
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let store = Store::new(dir.path().join("store"), 3);
        run(&store, "default/f", "r1", 1).unwrap();
        let profile = store.lookup(&function());
        let spooled = write(&store, "r2", &text("default/f", "r2", 2));
        drop(spooled.file);
        // Full.
        let filler = dir.path().join("filler");
        let mut file = File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        drop(file);
        let err = store.take_in(&spooled.path).unwrap_err();
        assert!(matches!(err, StoreError::Io { .. }), "{err}");
        let lines = warnings(|| {
            assert_eq!(store.sweep_spool().unwrap(), 0);
            assert_eq!(store.sweep_spool().unwrap(), 0);
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("no space left"), "{lines:?}");
        assert_eq!(store.lookup(&function()), profile);
        fs::remove_file(&filler).unwrap();
        // Read-only.
        mount(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, "1m").unwrap();
        let store = Store::new(dir.path().join("store"), 3);
        assert!(store.take_in(&spooled.path).is_err());
        assert_eq!(store.lookup(&function()), profile);
        mount(MsFlags::MS_REMOUNT, "1m").unwrap();
        assert_eq!(store.sweep_spool().unwrap(), 1);
        assert_eq!(
            store.lookup(&function()).unwrap().classes[&ClassName::all()].runs,
            2
        );
    });
    nix::mount::umount(dir.path()).unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
