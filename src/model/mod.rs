//! The nouns of the project: names and quantities with their units, checked when they are made.
//!
//! No input or output, no clock, no logging.

mod function;
mod hull;
mod id;
pub mod profile;
mod size;
pub mod trace;

pub use function::{ClassName, FunctionKey, InvalidName, RunId};
pub use id::{ContainerId, InvalidContainerId};
pub use size::{Bytes, InvalidLimit, InvalidSize, MemoryLimit, MemoryTime};
