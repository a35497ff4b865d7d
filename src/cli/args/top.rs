//! Options of `top`.

use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

/// What containers are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SortKey {
    /// Memory in use
    Use,
    /// The limit in force
    Grant,
    /// The declared limit
    Ceiling,
    /// Memory over time that was granted less than the ceiling
    Saved,
    /// The share of time in which tasks waited for memory
    Psi,
    /// When the grant was changed last
    Age,
    /// Name of the function
    Function,
    /// Namespace and name of the container
    Name,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Top {
    /// Print a table once, as is done where standard output is no terminal
    #[arg(long)]
    pub(in crate::cli) once: bool,
    /// Print JSON once
    #[arg(long, conflicts_with = "once")]
    pub(in crate::cli) json: bool,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub(in crate::cli) interval: Duration,
    /// What containers are sorted by
    #[arg(long, value_enum, value_name = "KEY", default_value = "use")]
    pub(in crate::cli) sort: SortKey,
    /// The other way round
    #[arg(long)]
    pub(in crate::cli) reverse: bool,
    /// Only containers with this text in namespace, name, function, pod, class, phase or mode
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(in crate::cli) filter: String,
}

/// Whoever looks more often than this is a load of its own.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(3600);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = crate::model::duration::parse(text).map_err(|err| err.to_string())?;
    match (LEAST..=MOST).contains(&interval) {
        true => Ok(interval),
        false => Err("want a duration from 100ms to 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        for wrong in ["0s", "1ms", "2h", "x", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
