//! Options of `doctor`.

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
