//! Options of `metrics`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Metrics {
    /// Write them to this file in one step, for the textfile collector of the node exporter
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) textfile: Option<PathBuf>,
    /// One series for each container, with a label id; without, containers with the same labels are added up
    #[arg(long)]
    pub(in crate::cli) with_id: bool,
}
