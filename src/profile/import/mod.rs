//! Runs from files: our own forms and those of the tools published with the WoSC 2020 paper.
//!
//! Here text becomes [`Trace`]s or [`Runs`]; nothing is read or stored. A file is read whole or not at all.

mod functracer;
mod hull;
mod results;

use std::fmt;
use std::time::Duration;

use super::document::{self, Runs};
use super::name;
use crate::model::RunId;
use crate::model::trace::Trace;

/// A form of file that runs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A trace of ours.
    Trace,
    /// The runs of a function, as `export` writes them.
    Runs,
    /// A trace of functracer: time of day, usage, perhaps the limit.
    Functracer,
    /// The file `aux` of functracer: one usage in a line, without times.
    Aux,
    /// An upscaling hull of statsplotter, `uhull.json`: seconds and MiB.
    UpscalingHull,
    /// The file `-results.dat` of functracer-multi: duration, peak and cost of one run in a line.
    Results,
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 6] = [
        Self::Trace,
        Self::Runs,
        Self::Functracer,
        Self::Aux,
        Self::UpscalingHull,
        Self::Results,
    ];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "csv",
            Self::Runs => "json",
            Self::Functracer => "functracer",
            Self::Aux => "aux",
            Self::UpscalingHull => "uhull",
            Self::Results => "results",
        }
    }

    /// The form that a text seems to have, by its beginning; the reader of that form has the last word.
    pub fn of(text: &str) -> Option<Self> {
        let first = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if first.starts_with("# elastic-mem trace") {
            Some(Self::Trace)
        } else if first.starts_with('{') {
            let is_ours = ["\"digests\"", "\"function\"", "\"version\""]
                .iter()
                .any(|key| text.contains(key));
            Some(if is_ours {
                Self::Runs
            } else {
                Self::UpscalingHull
            })
        } else if first
            .split(',')
            .next()
            .is_some_and(|time| time.contains(':'))
        {
            Some(Self::Functracer)
        } else if digits(first) {
            Some(Self::Aux)
        } else if first.split_ascii_whitespace().count() == results::COLUMNS {
            Some(Self::Results)
        } else {
            None
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportError {
    /// The line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for ImportError {}

impl ImportError {
    fn at(line: usize, reason: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            reason: reason.into(),
        }
    }

    fn whole(reason: impl Into<String>) -> Self {
        Self {
            line: None,
            reason: reason.into(),
        }
    }
}

/// What a file held.
#[derive(Debug, Clone, PartialEq)]
pub enum Imported {
    /// Runs, each with a name of its own. Only traces of ours say more about a run than its memory.
    Traces(Vec<(RunId, Trace)>),
    /// What is kept of the runs of a function.
    Runs(Runs),
}

/// Reads a text. `interval` is the time between two lines of [`Form::Aux`], which says nothing about it.
///
/// A run of a form that does not name it is named after the text: importing it again changes nothing. The names sort
/// before those of traced runs, as if they were older.
///
/// # Errors
/// [`ImportError`] for the first thing that is wrong.
pub fn read(text: &str, form: Form, interval: Option<Duration>) -> Result<Imported, ImportError> {
    let traces = match form {
        Form::Runs => {
            let runs = document::parse_runs(text.as_bytes()).map_err(ImportError::whole)?;
            return Ok(Imported::Runs(runs));
        }
        Form::Trace => vec![text.parse::<Trace>().map_err(|err| ImportError {
            line: Some(err.line),
            reason: err.reason,
        })?],
        Form::Functracer => vec![functracer::trace(text)?],
        Form::Aux => vec![functracer::aux(text, interval)?],
        Form::UpscalingHull => vec![hull::trace(text)?],
        Form::Results => results::traces(text)?,
    };
    let hash = name::hash(text.as_bytes());
    let count = traces.len();
    let named = traces.into_iter().enumerate().map(|(index, trace)| {
        let run = match &trace.context {
            Some(context) => context.run.clone(),
            None => {
                let number = if count > 1 {
                    format!("-{}", index.saturating_add(1))
                } else {
                    String::new()
                };
                format!("00-import-{hash}{number}")
                    .parse()
                    .map_err(|err| ImportError::whole(format!("{err}")))?
            }
        };
        Ok((run, trace))
    });
    named.collect::<Result<_, _>>().map(Imported::Traces)
}

/// The lines that are not blank, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .map(|(number, line)| (number, line.trim()))
        .filter(|(_, line)| !line.is_empty())
}

/// Foreign text in a message: escaped and not too long.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_known_by_its_beginning() {
        for (text, form) in [
            ("# elastic-mem trace 1\n", Some(Form::Trace)),
            ("\n{\"version\": 1, \"function\": \"a\"}", Some(Form::Runs)),
            ("{\"0.0\": 1.5}", Some(Form::UpscalingHull)),
            ("09:15:02.100,0\n", Some(Form::Functracer)),
            ("\n5242880\n", Some(Form::Aux)),
            ("2100  772 21  832 28.63   26.58 2.05", Some(Form::Results)),
            ("128\t400000\t0.1\t1", None),
            ("", None),
            ("t,usage\n", None),
        ] {
            assert_eq!(Form::of(text), form, "{text:?}");
        }
    }

    #[test]
    fn a_run_is_named_after_the_text() {
        let names = |text: &str, form| match read(text, form, None).unwrap() {
            Imported::Traces(traces) => {
                traces.into_iter().map(|(run, _)| run.to_string()).collect()
            }
            Imported::Runs(_) => Vec::new(),
        };
        let one = names("{\"0.0\": 1.5}", Form::UpscalingHull);
        assert_eq!(one, names("{\"0.0\": 1.5}", Form::UpscalingHull));
        assert_ne!(one, names("{\"0.0\": 2.5}", Form::UpscalingHull));
        let line = "2100 772 21 832 28.63 26.58 2.05\n";
        let two = names(&line.repeat(2), Form::Results);
        assert!(two[0].ends_with("-1") && two[1].ends_with("-2"), "{two:?}");
    }
}
