//! Names.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The name of a container, unique below one state folder and safe as a file name.
///
/// Letters, digits and `+ - . _`, at most 1024 bytes, neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// The text is no container name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid container ID format: {0:?}")]
pub struct InvalidContainerId(String);

/// Longest name; longer ones would also exceed the kernel's limit on file names.
const MAX_LENGTH: usize = 1024;

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
        let valid = !text.is_empty()
            && text.len() <= MAX_LENGTH
            && !matches!(text, "." | "..")
            && text.chars().all(allowed);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidContainerId(text.chars().take(80).collect()))
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
        assert!("x".repeat(1025).parse::<ContainerId>().is_err());
    }

    #[test]
    fn names_of_the_engines_are_accepted() {
        for good in ["a", "a.b_c-d+e", "0123456789abcdef", "..."] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        }
    }
}
