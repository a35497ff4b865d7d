//! Options of `plot`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use crate::cost::Month;
use crate::model::profile::BinWidth;
use crate::model::{Bytes, FunctionKey, duration};
use crate::plot::Memory;

#[derive(Debug, ClapArgs)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(in crate::cli) struct Plot {
    #[command(subcommand)]
    pub(in crate::cli) kind: Kind,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Kind {
    /// Runs of one input class with hull, barrelled hull and the sizes of a provider
    Hull(Hull),
    /// Functions side by side
    Shapes(Files),
    /// Input classes of one function over each other
    Classes(Files),
    /// A feature of the input against the peak, with bins
    Inputs(Inputs),
    /// One run with its grant and the waste
    Run(Run),
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Files {
    /// Traces
    #[arg(required_unless_present = "function", value_name = "TRACE")]
    pub(in crate::cli) traces: Vec<PathBuf>,
    /// The runs that are kept of this function in the profile store, in place of files; may be given several times
    #[arg(long, value_name = "FUNCTION", conflicts_with = "traces")]
    pub(in crate::cli) function: Vec<FunctionKey>,
    /// Memory to draw: what cannot be dropped, or the page cache
    #[arg(long, value_enum, default_value = "held")]
    pub(in crate::cli) memory: Memory,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Hull {
    #[command(flatten)]
    pub(in crate::cli) files: Files,
    /// Width of the bins of the hull: 20ms, halved or doubled
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = width)]
    pub(in crate::cli) bin: BinWidth,
    /// How much earlier than needed memory is given
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = duration::parse)]
    pub(in crate::cli) lead: Duration,
    /// Memory above the hull, in percent of it
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    pub(in crate::cli) buffer: u32,
    /// Also draw the sizes of this provider
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) provider: Option<String>,
    /// Month whose sizes are drawn; the newest known if absent
    #[arg(long, value_name = "YYYY-MM", requires = "provider")]
    pub(in crate::cli) date: Option<Month>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Inputs {
    #[command(flatten)]
    pub(in crate::cli) files: Files,
    /// Feature of the input, as the traces name it
    #[arg(long, value_name = "NAME", default_value = "input-bytes")]
    pub(in crate::cli) feature: String,
    /// Upper edges of all bins but the last, such as 500KB,2MB; learned if absent
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = edge)]
    pub(in crate::cli) edges: Vec<f64>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Run {
    /// Trace
    #[arg(required_unless_present = "function", value_name = "TRACE")]
    pub(in crate::cli) trace: Option<PathBuf>,
    /// The newest run that is kept of this function in the profile store, in place of a file
    #[arg(long, value_name = "FUNCTION", conflicts_with = "trace")]
    pub(in crate::cli) function: Option<FunctionKey>,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Where the picture goes, and in which form.
#[derive(Debug, Default, ClapArgs)]
pub(in crate::cli) struct Target {
    /// File; its ending says the form: .svg or .png
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Draw SVG, whose colours follow the page
    #[arg(long, group = "form")]
    pub(in crate::cli) svg: bool,
    /// Draw PNG
    #[arg(long, group = "form")]
    pub(in crate::cli) png: bool,
    /// Draw with characters
    #[arg(long, group = "form")]
    pub(in crate::cli) terminal: bool,
    /// Draw PNG on dark paper
    #[arg(long)]
    pub(in crate::cli) dark: bool,
    /// Title in place of the usual one
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) title: Option<String>,
}

impl ValueEnum for Memory {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Held, Self::File]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(match self {
            Self::Held => "held",
            Self::File => "file",
            Self::Usage => "usage",
        }))
    }
}

fn width(text: &str) -> Result<BinWidth, String> {
    BinWidth::try_from(duration::parse(text).map_err(|err| err.to_string())?)
        .map_err(|err| err.to_string())
}

/// A number, or a size with its unit.
fn edge(text: &str) -> Result<f64, String> {
    if let Ok(number) = text.parse::<f64>() {
        return if number.is_finite() {
            Ok(number)
        } else {
            Err(format!("{text} is no edge of a bin"))
        };
    }
    let bytes: Bytes = text
        .parse()
        .map_err(|_| format!("{text:?} is neither a number nor a size such as 500KB"))?;
    num_traits::ToPrimitive::to_f64(&bytes.get()).ok_or_else(|| format!("{text} is too large"))
}
