//! The command line of a shim: Go's flag syntax, one action at the end (containerd, `runtime/v2/README.md`).

use std::ffi::OsString;
use std::path::PathBuf;

/// What the shim is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Serve; this is how the shim calls itself.
    Serve,
    /// Start a server and tell its address.
    Start,
    /// Clean up after a server that has gone.
    Delete,
    /// Print the version.
    Version,
    /// Print what the runtime can do.
    Info,
}

/// Flags and action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Args {
    pub(super) action: Action,
    pub(super) namespace: String,
    pub(super) id: String,
    /// containerd's gRPC socket.
    pub(super) address: String,
    pub(super) bundle: Option<PathBuf>,
    pub(super) debug: bool,
}

impl Args {
    /// Understands the arguments after the program's name.
    ///
    /// # Errors
    /// What is wrong with them, for the user.
    pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut parsed = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            debug: false,
        };
        let (mut version, mut info) = (false, false);
        let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                parsed.action = match arg.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => return Err(format!("unknown action {arg:?}; there are: start, delete")),
                };
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "debug" => parsed.debug = is_true(name, inline)?,
                "v" | "version" => version = is_true(name, inline)?,
                "info" => info = is_true(name, inline)?,
                _ => {
                    let value = inline
                        .or_else(|| args.next())
                        .ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                    match name {
                        "namespace" => parsed.namespace = value,
                        "id" => parsed.id = value,
                        "address" => parsed.address = value,
                        "bundle" => parsed.bundle = Some(value.into()),
                        // Events go over containerd's socket; sockets lie where it looks for them.
                        "publish-binary" | "socket" => {}
                        _ => return Err(format!("flag provided but not defined: -{name}")),
                    }
                }
            }
        }
        if version {
            parsed.action = Action::Version;
        } else if info {
            parsed.action = Action::Info;
        } else if parsed.namespace.is_empty() {
            return Err("shim namespace cannot be empty".to_owned());
        } else if !is_folder_name(&parsed.namespace) {
            return Err(format!("no namespace: {:?}", parsed.namespace));
        }
        Ok(parsed)
    }
}

fn is_true(name: &str, value: Option<String>) -> Result<bool, String> {
    match value.as_deref() {
        None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(format!("invalid boolean value {value:?} for -{name}")),
    }
}

/// Namespaces become folder names below ours (containerd's rule for identifiers, `pkg/identifiers`).
fn is_folder_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_ascii_whitespace().map(OsString::from))
    }

    #[test]
    fn the_line_that_containerd_calls_with() {
        let line = "-namespace moby -address /run/c.sock -publish-binary /usr/bin/containerd -id a -bundle /b -debug start";
        let args = parse(line).unwrap();
        assert_eq!(args.action, Action::Start);
        assert_eq!((args.namespace.as_str(), args.id.as_str()), ("moby", "a"));
        assert_eq!(args.bundle, Some("/b".into()));
        assert!(args.debug);
    }

    #[test]
    fn two_dashes_and_equals_signs() {
        let args = parse("--namespace=a --debug=false -id=b delete").unwrap();
        assert_eq!(args.action, Action::Delete);
        assert!(!args.debug);
    }

    #[test]
    fn wrong_use_is_refused_by_name() {
        for (line, word) in [
            ("-namespace a -wrong b start", "-wrong"),
            ("-namespace a restart", "restart"),
            ("-namespace", "-namespace"),
            ("start", "namespace"),
            ("-namespace ../x start", "../x"),
        ] {
            let err = parse(line).unwrap_err();
            assert!(err.contains(word), "{line}: {err}");
        }
    }

    #[test]
    fn version_and_info_need_no_namespace() {
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }
}
