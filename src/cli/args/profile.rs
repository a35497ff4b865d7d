//! Options of `profile`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use crate::model::{ClassName, FunctionKey, RunId, duration};
use crate::profile::import::Form;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Profile {
    #[command(subcommand)]
    pub(in crate::cli) verb: ProfileVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ProfileVerb {
    /// List the functions of which something is known
    List(List),
    /// Show what is known of a function
    Show(Show),
    /// Show how inputs are put into classes, by each of their features
    Bins(Bins),
    /// Add what other hosts know: exported files, or a copy of their store
    Merge(Merge),
    /// Add runs from files: traces and those of the tools of the WoSC 2020 paper
    Import(Box<Import>),
    /// Print the runs of a function, or write them to files
    Export(Export),
    /// Forget a function, an input class that was given, or runs
    Forget(Forget),
    /// Check every file of the store
    Verify(Verify),
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct List {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Show {
    /// Name of the function, with its namespace
    #[arg(value_name = "FUNCTION")]
    pub(in crate::cli) function: FunctionKey,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Bins {
    /// Name of the function, with its namespace
    #[arg(value_name = "FUNCTION")]
    pub(in crate::cli) function: FunctionKey,
    /// Only by this feature
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) feature: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Merge {
    /// Exported files, folders of such files, or folders of a store
    #[arg(value_name = "PATH", required = true)]
    pub(in crate::cli) paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Import {
    /// Files, or folders whose files are meant
    #[arg(value_name = "PATH", required = true)]
    pub(in crate::cli) paths: Vec<PathBuf>,
    /// The function that ran; the one that a file names if absent
    #[arg(long, value_name = "FUNCTION")]
    pub(in crate::cli) function: Option<FunctionKey>,
    /// The input class of the runs
    #[arg(long, value_name = "CLASS")]
    pub(in crate::cli) class: Option<ClassName>,
    /// A number that describes the input, such as input-bytes=2048; may be repeated
    #[arg(long, value_name = "NAME=N", value_parser = feature)]
    pub(in crate::cli) feature: Vec<(String, f64)>,
    /// Name of the run, for a file with one
    #[arg(long, value_name = "RUN")]
    pub(in crate::cli) run: Option<RunId>,
    /// Form of the files; found out if absent
    #[arg(long, value_name = "FORM")]
    pub(in crate::cli) form: Option<Form>,
    /// Time between two lines of a file aux
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(in crate::cli) interval: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// The form of what is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportForm {
    /// What is kept of the runs, to be merged elsewhere
    Json,
    /// Traces
    Csv,
    /// Traces in the form of functracer
    Functracer,
    /// The hull of a class, moved ahead, as uhull.json
    Uhull,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Export {
    /// Name of the function, with its namespace
    #[arg(value_name = "FUNCTION")]
    pub(in crate::cli) function: FunctionKey,
    /// Form of what is written
    #[arg(long, value_name = "FORM", value_enum, default_value = "json")]
    pub(in crate::cli) form: ExportForm,
    /// Only this input class
    #[arg(long, value_name = "CLASS")]
    pub(in crate::cli) class: Option<ClassName>,
    /// Only this run; may be repeated
    #[arg(long, value_name = "RUN")]
    pub(in crate::cli) run: Vec<RunId>,
    /// How far ahead of its need memory is in the hull of uhull.json
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = duration::parse)]
    pub(in crate::cli) lead: Duration,
    /// File to write, or folder for several traces; standard output if absent
    #[arg(short, long, value_name = "PATH")]
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Forget {
    /// Name of the function, with its namespace
    #[arg(value_name = "FUNCTION")]
    pub(in crate::cli) function: FunctionKey,
    /// Only the runs of this input class
    #[arg(long, value_name = "CLASS", conflicts_with = "run")]
    pub(in crate::cli) class: Option<ClassName>,
    /// Only this run; may be repeated
    #[arg(long, value_name = "RUN")]
    pub(in crate::cli) run: Vec<RunId>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Verify {
    /// Set aside what cannot be used, finish what was interrupted, learn profiles again
    #[arg(long)]
    pub(in crate::cli) repair: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

impl ValueEnum for Form {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(match self {
            Self::Trace => "A trace of elastic-mem",
            Self::Runs => "An exported file of elastic-mem",
            Self::Functracer => "A trace of functracer",
            Self::Aux => "The file aux of functracer; needs --interval",
            Self::UpscalingHull => "uhull.json",
            Self::Results => "-results.dat of functracer-multi",
        }))
    }
}

fn feature(text: &str) -> Result<(String, f64), String> {
    let wrong =
        || format!("invalid feature {text:?}: want a name and a number, such as input-bytes=2048");
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let value: f64 = value.parse().map_err(|_| wrong())?;
    let fits = !name.is_empty()
        && value.is_finite()
        && !name.contains(|c: char| c == ',' || c.is_control());
    fits.then(|| (name.to_owned(), value)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_a_name_and_a_number() {
        assert_eq!(feature("a=2.5e3"), Ok(("a".to_owned(), 2500.0)));
        for wrong in ["a", "=1", "a=", "a=x", "a=NaN", "a=inf", "a,b=1"] {
            assert!(feature(wrong).is_err(), "{wrong}");
        }
    }
}
