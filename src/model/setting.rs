//! Values with where they come from.

use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file.
    File(PathBuf),
    /// The table of a function in a file.
    Function {
        /// The file.
        file: PathBuf,
        /// The name of the table: a function, or a pattern of functions.
        table: String,
    },
    /// An annotation of the container.
    Annotation(&'static str),
    /// An option of the command line.
    Option(&'static str),
}

impl Origin {
    /// How specific it is: what has a higher number counts before the others.
    pub const fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Function { .. } => 2,
            Self::Annotation(_) => 3,
            Self::Option(_) => 4,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Function { file, table } => {
                write!(f, "{}, table functions.{table:?}", file.display())
            }
            Self::Annotation(key) => write!(f, "annotation {key}"),
            Self::Option(name) => write!(f, "option {name}"),
        }
    }
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value in force.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// A value that is built in.
    pub const fn default(value: T) -> Self {
        Self {
            value,
            origin: Origin::Default,
        }
    }
}
