//! What is decided, from facts that others gathered.
//!
//! No input or output, no clock, no logging: the same facts give the same decision, so that one can be explained and
//! replayed.

pub mod health;
pub mod identity;
pub mod learn;
pub mod pareto;
pub mod placement;
pub mod plan;
mod reasons;
pub mod settings;
pub mod step;
