//! The comparison with runc.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::containerd::{self, Containerd};
use super::diff::{self, Entry, Transcript};
use super::{Case, DEADLINE, host, say, skip};

/// The scenarios that also run on the command line below runc's shim under a
/// containerd. Few: tests/integration holds what the verbs do. Those of Docker
/// run there too, all of them.
const ON_THE_COMMAND_LINE: &[&str] = &[
    " hello",
    " exit_code",
    " detached_kill_delete",
    " a_missing_program_fails_the_start",
    " pause_and_resume",
    " exec_codes",
    " a_terminal",
    " an_out_of_memory_kill",
];

/// How a client's request comes to a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// runc's shim and runc.
    Oracle,
    /// Our shim.
    Shim,
    /// runc's shim and our command line.
    Cli,
}

impl Route {
    /// The flags of `ctr run`.
    pub fn flags(self) -> Vec<String> {
        let mut flags = vec!["--runtime".to_owned()];
        match self {
            Self::Oracle => flags.push("io.containerd.runc.v2".to_owned()),
            Self::Shim => flags.push("io.containerd.elastic-mem.v1".to_owned()),
            Self::Cli => {
                flags.push("io.containerd.runc.v2".to_owned());
                flags.push("--runc-binary".to_owned());
                flags.push(host::our_program().to_string_lossy().into_owned());
            }
        }
        flags
    }

    /// The routes on which a scenario is compared with the oracle.
    pub fn under_test(scenario: &str) -> Vec<Self> {
        let wanted = std::env::var("ELASTIC_MEM_ROUTES").unwrap_or_else(|_| "shim,cli".to_owned());
        let chosen = scenario.starts_with("docker")
            || ON_THE_COMMAND_LINE
                .iter()
                .any(|name| scenario.ends_with(name));
        wanted
            .split(',')
            .filter_map(|word| match word {
                "shim" => Some(Self::Shim),
                "cli" => chosen.then_some(Self::Cli),
                "cli-all" => Some(Self::Cli),
                "oracle" | "" => None,
                other => panic!("ELASTIC_MEM_ROUTES: {other}"),
            })
            .collect()
    }
}

pub type Panic = Box<dyn std::any::Any + Send>;

/// A difference that is meant.
struct Allowed {
    route: Route,
    test: &'static str,
    label: &'static str,
    /// Why ours is the better behaviour. Printed when the entry differs.
    reason: &'static str,
}

/// The label of what a scenario left. Less than the oracle is no difference.
pub const LEFT: &str = "left behind";

const ALLOWED: &[Allowed] = &[];

/// Runs the scenario with runc and on every route, and compares the
/// transcripts. That nothing is left is a part of every transcript.
///
/// # Panics
/// When transcripts differ, or the scenario itself panics.
pub fn differential(engine: &str, name: &str, scenario: impl Fn(&mut Case)) {
    compared(engine, name, scenario, |_| true);
}

/// [`differential`] without the route of the command line.
pub fn shims(engine: &str, name: &str, scenario: impl Fn(&mut Case)) {
    compared(engine, name, scenario, |route| route != Route::Cli);
}

/// Runs the scenario with our shim alone, or with the oracle when nothing else
/// is to be run; a skip without either.
///
/// # Panics
/// When the scenario does, or something is left.
pub fn ours(engine: &str, name: &str, scenario: impl Fn(&mut Case)) {
    let Some(daemon) = daemon(engine) else {
        return;
    };
    let test = format!("{engine} {name}");
    let route = match Route::under_test(&test).as_slice() {
        [] if std::env::var("ELASTIC_MEM_ROUTES").is_ok_and(|routes| routes == "oracle") => {
            Route::Oracle
        }
        routes if routes.contains(&Route::Shim) => Route::Shim,
        _ => return skip("the shim is not among ELASTIC_MEM_ROUTES"),
    };
    if route == Route::Shim && !host::has_shim() {
        return skip("the command under test has no shim");
    }
    let transcript =
        transcript(&daemon, route, &scenario).unwrap_or_else(|(_, panic)| resume_unwind(panic));
    let left = transcript
        .into_iter()
        .find(|(label, _)| label == LEFT)
        .unwrap_or_default()
        .1;
    // The transcript has `@` for the beginning of ids.
    let left: Vec<_> = left
        .lines()
        .filter(|line| !is_of_others(line, "@"))
        .collect();
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

/// Whether something that was left is not the shim's: FIFOs are the client's
/// to remove, and it may have failed before. containerd renames a bundle
/// before it removes it; killed then, it never looks at such a name again.
pub fn is_of_others(left: &str, tag: &str) -> bool {
    left.trim() == "fifo" || left.contains(&format!("/.{tag}"))
}

/// The daemon to run on, or a skip.
fn daemon(engine: &str) -> Option<Arc<Containerd>> {
    if let Some(reason) = host::unfit() {
        skip(reason);
        return None;
    }
    if host::engine(engine).is_none() {
        skip(&format!("no {engine}; run scripts/engines"));
        return None;
    }
    Some(containerd::shared(engine))
}

fn compared(
    engine: &str,
    name: &str,
    scenario: impl Fn(&mut Case),
    exists: impl Fn(Route) -> bool,
) {
    let Some(daemon) = daemon(engine) else {
        return;
    };
    let test = format!("{engine} {name}");
    compare_routes(&test, |route| {
        exists(route).then(|| transcript(&daemon, route, &scenario))
    });
}

/// Takes the oracle's transcript, then each route's, and compares. A route
/// that yields none does not exist there.
///
/// What differs is looked at once more, from the oracle on: runc's shim loses
/// events and exit codes now and then, most of all on a busy machine. Each
/// time is counted and said, also of a test that passes then.
///
/// # Panics
/// When transcripts differ twice, or taking the oracle's panics twice.
pub fn compare_routes(
    test: &str,
    transcript: impl Fn(Route) -> Option<Result<Transcript, (Transcript, Panic)>>,
) {
    let once = || {
        let expected = transcript(Route::Oracle)?.map_err(|(_, panic)| panic);
        Some(expected.map(|expected| {
            Route::under_test(test)
                .into_iter()
                .filter(|route| *route != Route::Shim || host::has_shim())
                .map(|route| report(test, route, &expected, transcript(route)))
                .collect::<String>()
        }))
    };
    let Some(first) = once() else {
        return;
    };
    let again = match first {
        Ok(report) if report.is_empty() => None,
        Ok(report) => {
            say_retry(test, &report);
            once()
        }
        Err(panic) => {
            say_retry(test, &format!("the oracle failed: {}", message(&panic)));
            once()
        }
    };
    match again {
        None => {}
        Some(Ok(report)) => assert!(report.is_empty(), "{report}"),
        Some(Err(panic)) => resume_unwind(panic),
    }
    if Route::under_test(test).contains(&Route::Shim) && !host::has_shim() {
        skip("the command under test has no shim");
    }
}

fn say_retry(test: &str, why: &str) {
    static RETRIES: AtomicUsize = AtomicUsize::new(0);
    let count = RETRIES.fetch_add(1, Ordering::Relaxed) + 1;
    say(&format!(
        "RETRY {count}: {test} is looked at once more:\n{}",
        why.trim_end()
    ));
}

fn message(panic: &Panic) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "?",
    }
}

/// What is different on a route; nothing if it does not exist there.
fn report(
    test: &str,
    route: Route,
    expected: &[Entry],
    transcript: Option<Result<Transcript, (Transcript, Panic)>>,
) -> String {
    match transcript {
        None => String::new(),
        Some(Ok(actual)) => {
            let differences = compare(test, route, expected, &actual);
            if differences.is_empty() {
                differences
            } else {
                format!("{test}: {route:?} differs from runc:\n{differences}")
            }
        }
        Some(Err((actual, panic))) => {
            // What came before the panic often explains it.
            let seen = actual.len().min(expected.len());
            let differences = compare(test, route, &expected[..seen], &actual[..seen]);
            let message = message(&panic);
            format!("{test}: only {route:?} panicked: {message}\n{differences}")
        }
    }
}

fn transcript(
    daemon: &Arc<Containerd>,
    route: Route,
    scenario: &impl Fn(&mut Case),
) -> Result<Transcript, (Transcript, Panic)> {
    let mut case = Case::new(Arc::clone(daemon), route);
    let result = catch_unwind(AssertUnwindSafe(|| scenario(&mut case)));
    let result = result.and_then(|()| {
        catch_unwind(AssertUnwindSafe(|| {
            let left = case.settle(*DEADLINE / 3).join("\n");
            case.note(LEFT, &left);
        }))
    });
    let result = match result {
        Ok(()) => Ok(std::mem::take(&mut case.transcript)),
        Err(panic) => {
            eprintln!(
                "--- {} on {route:?}, end of its log\n{}",
                case.daemon.engine,
                case.daemon.log_tail()
            );
            let _ = catch_unwind(AssertUnwindSafe(|| case.clear()));
            Err((std::mem::take(&mut case.transcript), panic))
        }
    };
    let _ = catch_unwind(AssertUnwindSafe(|| case.clear()));
    result
}

/// Whether each line of `part` is one of `whole`, and not more often.
fn is_part(part: &str, whole: &str) -> bool {
    let mut rest: Vec<_> = whole.lines().map(str::trim).collect();
    part.lines().map(str::trim).all(|line| {
        let found = rest.iter().position(|other| *other == line);
        found.map(|at| rest.swap_remove(at)).is_some()
    })
}

fn compare(test: &str, route: Route, expected: &[Entry], actual: &[Entry]) -> String {
    diff::transcripts(expected, actual, |label, text, our_text| {
        if label == LEFT && is_part(our_text, text) {
            return true;
        }
        let allowed = ALLOWED.iter().find(|allowed| {
            allowed.route == route && test.ends_with(allowed.test) && label == allowed.label
        });
        if let Some(allowed) = allowed {
            say(&format!("ALLOWED {test}: {label}: {}", allowed.reason));
        }
        allowed.is_some()
    })
}
