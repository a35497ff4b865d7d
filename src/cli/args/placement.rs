//! Options of `placement` and `weights`.

use clap::{Args as ClapArgs, Subcommand};

use super::Addressee;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Placement {
    #[command(flatten)]
    pub(in crate::cli) container: Addressee,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Weights {
    #[command(subcommand)]
    pub(in crate::cli) verb: WeightsVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WeightsVerb {
    /// Show the weights of the host, and who relies on them
    Show(Show),
    /// Set weights until they are released
    Set(Set),
    /// Give back the weights that were found
    Release(Release),
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Show {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Set {
    /// A node and its weight from 1 to 255, such as 0=3 1=1
    #[arg(value_name = "NODE=WEIGHT", required = true, value_parser = weight)]
    pub(in crate::cli) weights: Vec<(u32, u8)>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Release {
    /// Also while containers rely on them
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

fn weight(text: &str) -> Result<(u32, u8), String> {
    let wanted = || format!("{text:?} is not a node and its weight from 1 to 255, such as 0=3");
    let (node, weight) = text.split_once('=').ok_or_else(wanted)?;
    let node = node.parse().map_err(|_| wanted())?;
    let weight = weight.parse().map_err(|_| wanted())?;
    (weight > 0).then_some((node, weight)).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_belongs_to_a_node() {
        assert_eq!(weight("1=255"), Ok((1, 255)));
        for bad in ["", "1", "=1", "1=", "1=0", "1=256", "-1=1", "a=1"] {
            assert!(weight(bad).unwrap_err().contains("such as 0=3"), "{bad}");
        }
    }
}
