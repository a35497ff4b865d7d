//! Several runs of a function, of which those that were not measured are repeated.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{Result, TracerError};
use super::figures::incomplete;
use super::run::{Circumstances, Ran};
use super::{Function, Traced, Tracer};
use crate::model;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many runs are wanted.
    pub runs: u32,
    /// How often a run that was not measured is repeated.
    pub retries: u32,
    /// Go on after a run that failed.
    pub keep_going: bool,
    /// A function that ends with another code than 0 has not failed.
    pub allow_failure: bool,
    /// What the function reads from its standard input; nothing, if absent.
    pub stdin: Option<PathBuf>,
    /// Whether its output goes to our standard error.
    pub show_output: bool,
    /// A run is killed after that, and has failed.
    pub timeout: Option<Duration>,
}

/// What happens, for whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// Run number `.0` begins, at the attempt `.1`; both count from 1.
    Begins(u32, u32),
    /// This is to be done with its memory.
    Planned(&'a model::plan::Plan),
    /// It goes on.
    Goes,
    /// It was not measured, for this reason, and is repeated.
    Repeats(&'a str),
    /// It has ended.
    Ends(&'a Outcome),
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The run, from 1.
    pub number: u32,
    /// How often it was tried.
    pub attempts: u32,
    /// How it went.
    pub verdict: Verdict,
    /// What was measured.
    pub traced: Option<Traced>,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can be learned from.
    Good,
    /// The function failed with this code, or was ended by the OOM killer.
    Failed(String),
    /// There is no trace that tells what it needed.
    NotMeasured(String),
}

/// The runs that were made.
#[derive(Debug)]
pub struct Series {
    /// In their order.
    pub outcomes: Vec<Outcome>,
    /// Whether a signal has ended it early.
    pub interrupted: bool,
}

impl Series {
    /// Whether all that was wanted was measured.
    pub fn is_good(&self, plan: &Plan) -> bool {
        let good = self
            .outcomes
            .iter()
            .filter(|one| one.verdict == Verdict::Good);
        !self.interrupted && good.count() == usize::try_from(plan.runs).unwrap_or(usize::MAX)
    }
}

impl Tracer {
    /// Runs a function as the plan says.
    ///
    /// # Errors
    /// What keeps it from running at all, as `Verb` or `Io`. Runs before that are lost with it only if it is the first
    /// one that cannot be made.
    pub fn series(
        &mut self,
        function: &Function,
        plan: &Plan,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Series> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut interrupted = false;
        for number in 1..=plan.runs {
            let outcome = match self.measure(function, plan, number, watch) {
                Ok(outcome) => outcome,
                Err(TracerError::Interrupted) => {
                    interrupted = true;
                    break;
                }
                Err(err) if number == 1 => return Err(err),
                Err(err) => Outcome {
                    number,
                    attempts: 1,
                    verdict: Verdict::NotMeasured(crate::runtime::chain(&err)),
                    traced: None,
                },
            };
            watch(Event::Ends(&outcome));
            let is_good = outcome.verdict == Verdict::Good;
            outcomes.push(outcome);
            if !is_good && !plan.keep_going {
                break;
            }
        }
        Ok(Series {
            outcomes,
            interrupted,
        })
    }

    /// One run, with as many attempts as it needs.
    fn measure(
        &mut self,
        function: &Function,
        plan: &Plan,
        number: u32,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome> {
        let circumstances = Circumstances {
            stdin: plan.stdin.clone(),
            show_output: plan.show_output,
            timeout: plan.timeout,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            watch(Event::Begins(number, attempts));
            let ran = self.run(function, &circumstances, watch);
            let (verdict, traced) = match ran {
                Ok(ran) => judge(ran, plan),
                Err(TracerError::Verb {
                    verb,
                    reason,
                    cut_off: true,
                }) => (Verdict::NotMeasured(format!("{verb}: {reason}")), None),
                Err(err) => return Err(err),
            };
            match &verdict {
                Verdict::NotMeasured(reason) if attempts <= plan.retries => {
                    watch(Event::Repeats(reason));
                }
                _ => {
                    return Ok(Outcome {
                        number,
                        attempts,
                        verdict,
                        traced,
                    });
                }
            }
        }
    }
}

/// Whether a run can be learned from.
fn judge(ran: Ran, plan: &Plan) -> (Verdict, Option<Traced>) {
    let (code, traced) = match ran {
        Ran::Ended(code, traced) => (code, traced.map(|traced| *traced)),
        Ran::TimedOut => {
            let time = plan.timeout.unwrap_or_default();
            let reason = format!("not ended after {time:?}, and killed");
            return (Verdict::Failed(reason), None);
        }
    };
    let killed = traced
        .as_ref()
        .and_then(|traced| traced.trace.end)
        .is_some_and(|end| end.oom_kills > 0);
    let verdict = if killed {
        // What it would have needed is not known, whatever it made of that.
        Verdict::Failed(format!(
            "the OOM killer ended processes of it at its limit; it ended with code {code}"
        ))
    } else if code != 0 && !plan.allow_failure {
        Verdict::Failed(format!("the function ended with code {code}"))
    } else {
        match traced.as_ref().map(|traced| incomplete(&traced.trace)) {
            Some(None) => Verdict::Good,
            Some(Some(reason)) => Verdict::NotMeasured(reason.to_owned()),
            None => Verdict::NotMeasured("the sampler has written no trace".to_owned()),
        }
    };
    (verdict, traced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bytes;
    use crate::model::trace::{End, Sample, Trace};

    fn plan() -> Plan {
        Plan {
            runs: 1,
            retries: 0,
            keep_going: false,
            allow_failure: false,
            stdin: None,
            show_output: false,
            timeout: Some(Duration::from_secs(1)),
        }
    }

    fn ended(code: i32, oom_kills: u64, samples: usize) -> Ran {
        let zero = Some(Bytes::ZERO);
        let sample = Sample {
            anon: zero,
            shmem: zero,
            kernel: zero,
            ..Sample::default()
        };
        let trace = Trace {
            end: Some(End {
                code: Some(code),
                peak: None,
                oom_kills,
                ..End::default()
            }),
            samples: vec![sample; samples],
            ..Trace::default()
        };
        let traced = Traced {
            file: PathBuf::new(),
            trace,
            last_words: Vec::new(),
        };
        Ran::Ended(code, Some(Box::new(traced)))
    }

    #[test]
    fn a_run_is_good_if_the_function_and_the_measurement_are() {
        let verdict = |ran, plan: &Plan| judge(ran, plan).0;
        assert_eq!(verdict(ended(0, 0, 2), &plan()), Verdict::Good);
        assert!(matches!(
            verdict(ended(3, 0, 2), &plan()),
            Verdict::Failed(_)
        ));
        assert!(matches!(
            verdict(ended(0, 1, 2), &plan()),
            Verdict::Failed(_)
        ));
        assert!(matches!(
            verdict(ended(0, 0, 1), &plan()),
            Verdict::NotMeasured(_)
        ));
        assert!(matches!(
            verdict(Ran::Ended(0, None), &plan()),
            Verdict::NotMeasured(_)
        ));
        assert!(matches!(
            verdict(Ran::TimedOut, &plan()),
            Verdict::Failed(_)
        ));
        let lenient = Plan {
            allow_failure: true,
            ..plan()
        };
        assert_eq!(verdict(ended(3, 0, 2), &lenient), Verdict::Good);
        // A failure tells nothing of what would have been needed when memory was short.
        assert!(matches!(
            verdict(ended(137, 1, 2), &lenient),
            Verdict::Failed(_)
        ));
    }
}
