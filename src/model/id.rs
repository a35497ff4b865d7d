//! Names.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The name of a container, unique below one state folder and safe as a file name.
///
/// Letters, digits and `+ - . _`, neither `.` nor `..`. How long it may be is up to the file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// The text is no container name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContainerId {
    /// There is no text.
    #[error("container id cannot be empty")]
    Empty,
    /// It is one of the two special folder names, or holds something else than the allowed characters.
    #[error("invalid container ID format: {0:?}")]
    Format(String),
}

impl ContainerId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidContainerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        if text.is_empty() {
            Err(InvalidContainerId::Empty)
        } else if matches!(text, "." | "..") || !text.chars().all(allowed) {
            Err(InvalidContainerId::Format(text.chars().take(80).collect()))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for ContainerId {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_state_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "ä", "a\0"] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_the_engines_are_accepted() {
        for good in ["a", "a.b_c-d+e", "0123456789abcdef", "..."] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        }
    }
}
