//! What is decided: pure, without input or output, without a clock, without a log.

pub mod identity;
