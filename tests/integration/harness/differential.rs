//! The comparison with runc.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::diff::{self, Entry, Transcript};
use super::{Case, host, say, skip};

/// A difference that is meant.
struct Allowed {
    /// The end of the test's path, e.g. `hooks::order`.
    test: &'static str,
    /// The label of the transcript entry.
    label: &'static str,
    /// Why ours is the better behaviour. Printed when the entry differs.
    reason: &'static str,
}

const ALLOWED: &[Allowed] = &[];

/// Runs the scenario under runc and under our command, each with a bundle,
/// id, cgroup and `--root` of its own, and compares the transcripts. That
/// nothing is left after `delete --force` is a part of every transcript.
///
/// # Panics
/// When the transcripts differ, or the scenario itself panics.
pub fn differential<F: Fn(&mut Case)>(scenario: F) {
    if let Some(reason) = host::unfit() {
        return skip(reason);
    }
    let Some(runc) = host::runc_program() else {
        return skip("no runc to compare with");
    };
    let test = test_name::<F>();
    let expected = transcript(Case::new(runc), &scenario).unwrap_or_else(|(_, panic)| {
        eprintln!("{test}: the oracle itself failed");
        resume_unwind(panic)
    });
    match transcript(Case::new(host::our_program()), &scenario) {
        Ok(actual) => {
            let report = compare(&test, &expected, &actual);
            assert!(report.is_empty(), "{test} differs from runc:\n{report}");
        }
        Err((actual, panic)) => {
            // What came before the panic often explains it.
            let seen = actual.len().min(expected.len());
            let report = compare(&test, &expected[..seen], &actual[..seen]);
            eprintln!("{test} panicked only with our command\n{report}");
            resume_unwind(panic)
        }
    }
}

type Panic = Box<dyn std::any::Any + Send>;

fn transcript(
    mut case: Case,
    scenario: &impl Fn(&mut Case),
) -> Result<Transcript, (Transcript, Panic)> {
    match catch_unwind(AssertUnwindSafe(|| scenario(&mut case))) {
        Ok(()) => {
            let left = case.finish().join("\n");
            case.note("left behind", &left);
            Ok(std::mem::take(&mut case.transcript))
        }
        Err(panic) => {
            case.finish();
            Err((std::mem::take(&mut case.transcript), panic))
        }
    }
}

/// The path of the test function that made the closure `F`.
fn test_name<F>() -> String {
    std::any::type_name::<F>()
        .trim_end_matches("::{{closure}}")
        .to_owned()
}

fn compare(test: &str, expected: &[Entry], actual: &[Entry]) -> String {
    diff::transcripts(expected, actual, |label, _, _| {
        let allowed = ALLOWED
            .iter()
            .find(|allowed| test.ends_with(allowed.test) && label == allowed.label);
        if let Some(allowed) = allowed {
            say(&format!("ALLOWED {test}: {label}: {}", allowed.reason));
        }
        allowed.is_some()
    })
}
