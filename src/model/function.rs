//! Names of functions, input classes and runs.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name is at most so long, in bytes.
const LONGEST: usize = 256;

/// The text is no name of that kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// There is no text.
    #[error("the name of a {0} cannot be empty")]
    Empty(&'static str),
    /// There is too much of it.
    #[error("the name of a {0} has at most {LONGEST} bytes")]
    Long(&'static str),
    /// It holds a control character or a comma, which would break lines and columns.
    #[error("the name of a {0} holds neither commas nor control characters: {1:?}")]
    Character(&'static str, String),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if text.is_empty() {
                    Err(InvalidName::Empty($kind))
                } else if text.len() > LONGEST {
                    Err(InvalidName::Long($kind))
                } else if text.chars().any(|c| c.is_control() || c == ',') {
                    Err(InvalidName::Character($kind, text.to_owned()))
                } else {
                    Ok(Self(text.to_owned()))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// What a profile is about: `NAMESPACE/NAME`, so that no tenant writes another's profile.
    FunctionKey,
    "function"
);
name!(
    /// A bin of inputs with one profile; [`ClassName::all`] holds every input.
    ClassName,
    "class"
);
name!(
    /// One run, unique over hosts. Names of later runs sort behind those of earlier ones.
    RunId,
    "run"
);

impl FunctionKey {
    /// The key of a function in a namespace. What is too long is shortened and told apart by a hash; characters that
    /// a name cannot have become `_`.
    pub fn new(namespace: &str, name: &str) -> Self {
        let plain = |c: char| if c.is_control() || c == ',' { '_' } else { c };
        let whole: String = format!("{namespace}/{name}").chars().map(plain).collect();
        if whole.len() <= LONGEST {
            return Self(whole);
        }
        // Stable over versions and hosts.
        let mut hasher = fnv::FnvHasher::default();
        hasher.write(whole.as_bytes());
        let mut short = String::new();
        for c in whole.chars() {
            if short.len() + c.len_utf8() > LONGEST - 17 {
                break;
            }
            short.push(c);
        }
        Self(format!("{short}~{:016x}", hasher.finish()))
    }
}

impl ClassName {
    /// The class `*` of all inputs.
    pub fn all() -> Self {
        Self("*".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_files_are_refused() {
        assert_eq!("".parse::<ClassName>(), Err(InvalidName::Empty("class")));
        assert!("a\nb".parse::<FunctionKey>().is_err());
        assert!("a,b".parse::<RunId>().is_err());
        assert!("x".repeat(257).parse::<RunId>().is_err());
        assert!("default/thumb nail".parse::<FunctionKey>().is_ok());
    }

    #[test]
    fn a_bad_name_in_a_document_is_an_error() {
        assert!(serde_json::from_str::<ClassName>("\"\"").is_err());
        let class: ClassName = serde_json::from_str("\"small\"").unwrap();
        assert_eq!(class.as_str(), "small");
    }
}
