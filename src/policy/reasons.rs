//! Reasons that were given so far, in the order in which they were.

use crate::model::plan::Reason;

/// A list that grows while something is decided.
#[derive(Debug, Default)]
pub(super) struct Reasons(pub(super) Vec<Reason>);

impl Reasons {
    /// Adds one.
    pub(super) fn add(
        &mut self,
        what: &'static str,
        value: impl std::fmt::Display,
        because: String,
        change: &str,
    ) {
        self.0.push(Reason {
            what: what.into(),
            value: value.to_string(),
            because,
            change: change.to_owned(),
        });
    }
}
