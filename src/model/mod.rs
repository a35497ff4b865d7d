//! The nouns of the project: names and quantities with their units, checked when they are made.
//!
//! No input or output, no clock, no logging.

mod context;
pub mod duration;
mod function;
mod hull;
mod id;
mod mode;
pub mod nodes;
pub mod placed;
pub mod placement;
pub mod plan;
mod priority;
pub mod profile;
mod quantile;
mod setting;
mod size;
pub mod status;
pub mod trace;

pub use function::{ClassName, FunctionKey, InvalidName, RunId};
pub use hull::Hull;
pub use id::{ContainerId, InvalidContainerId};
pub use mode::{InvalidMode, Mode};
pub use priority::Priority;
pub use quantile::{InvalidQuantile, Quantile};
pub use setting::{Origin, Setting};
pub use size::{Bytes, InvalidLimit, InvalidSize, MemoryLimit, MemoryTime};
