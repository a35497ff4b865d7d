//! Options of `report`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::model::FunctionKey;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Report {
    /// The function, with its namespaces
    #[arg(value_name = "FUNCTION", required_unless_present = "host")]
    pub(in crate::cli) function: Option<FunctionKey>,
    /// All containers and functions of this host
    #[arg(long, conflicts_with = "function")]
    pub(in crate::cli) host: bool,
    /// File to write; standard output without
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}
