//! How runs go: a bar on a terminal, a line for each run elsewhere. Both on standard error.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::report::line;
use super::why;
use crate::model::Mode;
use crate::model::trace::Context;
use crate::tracer::{Event, Outcome, Plan, Verdict};

/// What is shown.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    runs: u32,
    /// Whether the name of the container was told.
    named: bool,
    /// What is to be done with the memory, until it was told why something else is.
    wanted: Option<Mode>,
}

impl Progress {
    /// For so many runs.
    pub(super) fn begin(plan: &Plan, mode: Mode) -> Self {
        // What the function writes would tear a bar apart.
        let style = "{bar:24} {pos}/{len} runs  {msg}";
        Self {
            bar: (!plan.show_output)
                .then(|| bar(plan.runs.into(), style))
                .flatten(),
            runs: plan.runs,
            named: false,
            wanted: Some(mode),
        }
    }

    /// For a container that somebody else runs.
    pub(super) fn attached(duration: Option<Duration>) -> Self {
        let style = match duration {
            Some(_) => "{bar:24} {elapsed} of {len}s  {msg}",
            None => "{spinner} {elapsed}  {msg}",
        };
        Self {
            bar: bar(duration.map_or(0, |time| time.as_secs().max(1)), style),
            runs: 1,
            named: false,
            wanted: None,
        }
    }

    /// The function is made ready, which can take a while.
    pub(super) fn prepares(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message("getting the function ready");
            bar.tick();
        }
    }

    /// Something has happened.
    pub(super) fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Planned(plan) => {
                if let Some(wanted) = self.wanted.take().filter(|wanted| *wanted != plan.mode) {
                    let reason = plan.reasons.iter().find(|reason| reason.what == "mode");
                    let because = reason.map_or("", |reason| &reason.because);
                    let change = reason.map_or("", |reason| &reason.change);
                    self.say(&format!(
                        "mode {}, not {wanted}: {because} (what would change it: {change})",
                        plan.mode
                    ));
                }
            }
            Event::Begins(number, attempt) => {
                if let Some(bar) = &self.bar {
                    bar.set_message(match attempt {
                        1 => format!("run {number}"),
                        _ => format!("run {number}, attempt {attempt}"),
                    });
                }
            }
            Event::Goes => {
                if let Some(bar) = &self.bar {
                    bar.tick();
                }
            }
            Event::Repeats(reason) => self.say(&format!("not measured: {reason}; once more")),
            Event::Ends(outcome) => {
                self.say(&self.ended(outcome));
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                }
            }
        }
    }

    fn ended(&self, outcome: &Outcome) -> String {
        let told = match &outcome.verdict {
            Verdict::Good => {
                let figures = super::figures(outcome).map(|figures| line(&figures));
                let figures = figures.unwrap_or_default();
                format!("run {} of {}: {figures}", outcome.number, self.runs)
            }
            _ => why(outcome).unwrap_or_default(),
        };
        let words = outcome
            .traced
            .as_ref()
            .filter(|_| outcome.verdict != Verdict::Good)
            .map(|traced| &traced.last_words[..])
            .unwrap_or_default();
        std::iter::once(told)
            .chain(words.iter().map(|line| format!("  | {line}")))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// A container is being traced.
    pub(super) fn goes(&mut self, context: &Context) {
        let name = context.container.as_deref().unwrap_or_default();
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("attached to {name}; Ctrl-C ends the trace"));
                bar.set_position(bar.elapsed().as_secs());
            }
            None if !self.named => self.say(&format!("attached to {name}")),
            None => {}
        }
        self.named = true;
    }

    /// Nothing more is to come.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Drop for Progress {
    /// Also when something fails on the way: what is told then must not stand in a torn line.
    fn drop(&mut self) {
        self.end();
    }
}

fn bar(length: u64, style: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template(style).ok()?;
    Some(ProgressBar::new(length).with_style(style))
}
