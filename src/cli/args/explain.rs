//! Options of `explain`.

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Explain {
    /// Bundle folder of a container that is not created yet, or the name of one that is; a name with a slash is a folder
    #[arg(value_name = "BUNDLE|CONTAINER")]
    pub(in crate::cli) what: String,
    /// Namespace of the engine; of a container that exists only where several have the name, else `default`
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) namespace: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
