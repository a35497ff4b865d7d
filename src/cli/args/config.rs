//! Options of `config`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use crate::model::FunctionKey;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Config {
    #[command(subcommand)]
    pub(in crate::cli) verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigVerb {
    /// Show what is in force and where each value comes from
    Show(Show),
    /// Look for mistakes
    Check(Check),
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Show {
    /// How this function is treated, NAMESPACE/NAME
    #[arg(long, value_name = "FUNCTION")]
    pub(in crate::cli) function: Option<FunctionKey>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Check {
    /// File in place of the one in force; the folder config.d beside it is read too
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: Option<PathBuf>,
}
