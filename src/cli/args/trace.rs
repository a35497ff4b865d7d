//! Arguments of `trace`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args as ClapArgs, ValueEnum};

use crate::model::{ClassName, MemoryLimit, Mode, duration};
use crate::tracer::{Bind, Origin};

/// Options of `trace`.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("what").required(true).args(["image", "rootfs", "bundle", "attach"]))]
pub(in crate::cli) struct Trace {
    #[command(flatten)]
    pub(in crate::cli) function: Function,
    /// Trace a running container of any runtime instead: its id, the first digits of it, Docker's name for it, a
    /// process id, or the path of a control group
    #[arg(
        long,
        value_name = "CONTAINER",
        requires = "output",
        conflicts_with = "command"
    )]
    pub(in crate::cli) attach: Option<String>,
    /// Stop after that when attached; without, the trace ends with the container
    #[arg(long, value_name = "DURATION", requires = "attach", value_parser = duration::parse)]
    pub(in crate::cli) duration: Option<Duration>,
    /// What is done with its memory; modes that change its limit follow the profile of the function
    #[arg(short, long, value_name = "MODE", default_value = "observe", value_parser = mode(), conflicts_with = "attach")]
    pub(in crate::cli) mode: Mode,
    /// How many runs are wanted
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "attach")]
    pub(in crate::cli) runs: u32,
    /// How often a run that was not measured is repeated
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(in crate::cli) retries: u32,
    /// Go on after a run that failed
    #[arg(long)]
    pub(in crate::cli) keep_going: bool,
    /// A function that ends with another code than 0 has not failed
    #[arg(long)]
    pub(in crate::cli) allow_failure: bool,
    /// Kill a run after that
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(in crate::cli) timeout: Option<Duration>,
    /// Pass what the function writes on to standard error
    #[arg(long)]
    pub(in crate::cli) show_output: bool,

    /// Folder that gets the traces
    #[arg(short, long, value_name = "FOLDER")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Do not learn from the runs: profiles stay as they are
    #[arg(long)]
    pub(in crate::cli) no_store: bool,
    /// Picture of the trace, or of the hull of several; with a mode that changes the limit, of the last run with its
    /// grant: a name that ends in .svg or .png
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) plot: Option<PathBuf>,
    /// Form of these traces
    #[arg(long, value_enum, default_value = "csv")]
    pub(in crate::cli) format: TraceFormat,
}

/// A function, and what it is run with.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Function {
    /// Image to run: a tar file or a folder with an image layout, else a name that Docker or containerd knows
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: Option<String>,
    /// Command, with its arguments, in place of the one that the image or the bundle has
    #[arg(value_name = "COMMAND", last = true)]
    pub(in crate::cli) command: Vec<String>,
    /// Folder with a root file system to run the command in; it is not changed
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) rootfs: Option<PathBuf>,
    /// Bundle to run; it is not changed
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) bundle: Option<PathBuf>,
    /// Where to look for the image
    #[arg(long, value_enum, default_value = "any")]
    pub(in crate::cli) from: Origin,
    /// Namespace of containerd
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(in crate::cli) namespace: String,

    /// Input: a file or folder that is mounted read-only, at the same path if no other is given; may be repeated
    #[arg(long = "input", value_name = "FILE[:PATH]", value_parser = |text: &str| Bind::parse(text, true))]
    pub(in crate::cli) inputs: Vec<Bind>,
    /// File that the function reads as its standard input
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) stdin: Option<PathBuf>,
    /// Variable of the environment; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(in crate::cli) env: Vec<String>,
    /// Further file or folder that is mounted; may be repeated
    #[arg(long = "mount", value_name = "SOURCE[:PATH][:ro]", value_parser = |text: &str| Bind::parse(text, false))]
    pub(in crate::cli) mounts: Vec<Bind>,
    /// Memory limit, such as 256m; without, that of the bundle
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) memory: Option<MemoryLimit>,
    /// User, and group if it is another than the user's, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(in crate::cli) user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    pub(in crate::cli) workdir: Option<PathBuf>,
    /// Use the network of the host; without, there is none
    #[arg(long)]
    pub(in crate::cli) host_network: bool,

    /// Name of the function, with its namespace if it has one; without, that of the image or folder
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub(in crate::cli) function: Option<String>,
    /// Input class
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) class: Option<ClassName>,
    /// Number that describes the input, besides input-bytes and pixels; may be repeated
    #[arg(long = "feature", value_name = "NAME=NUMBER", value_parser = feature)]
    pub(in crate::cli) features: Vec<(String, f64)>,
}

/// Form of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TraceFormat {
    /// One line for each sample
    Csv,
    /// One document
    Json,
}

impl ValueEnum for Origin {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Any, Self::File, Self::Docker, Self::Containerd]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(match self {
            Self::Any => "any",
            Self::File => "file",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
        }))
    }
}

fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::ALL.map(Mode::as_str)).try_map(|text| text.parse::<Mode>())
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("want NAME=VALUE".to_owned()),
    }
}

fn feature(text: &str) -> Result<(String, f64), String> {
    let wrong = || "want NAME=NUMBER, such as seconds=2.5".to_owned();
    let (name, number) = text.split_once('=').ok_or_else(wrong)?;
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() && !name.is_empty() => Ok((name.to_owned(), number)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_finite_numbers_with_a_name() {
        assert_eq!(feature("a=2.5"), Ok(("a".to_owned(), 2.5)));
        for bad in ["a", "=1", "a=", "a=x", "a=inf", "a=NaN"] {
            assert!(feature(bad).is_err(), "{bad}");
        }
    }
}
