//! Why something was not installed.

use std::io;
use std::path::{Path, PathBuf};

use super::cri::Mistake;

/// Why something was not installed or taken out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// A file or folder refuses.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The host's own folders belong to root.
    #[error("{} and other folders of the host are written to: run it as root, or below a folder with --destdir", _0.display())]
    NotRoot(PathBuf),
    /// It is somewhere else already, and engines know of that.
    #[error("it is installed below {} already: leave out --prefix, or run `elastic-mem uninstall` first", _0.display())]
    OtherPrefix(PathBuf),
    /// Another one runs.
    #[error("another `elastic-mem install` or `uninstall` runs ({} is locked): try again when it has ended", _0.display())]
    Locked(PathBuf),
    /// A file is not what its reader understands.
    #[error("{}, line {line}: {text}: mend the file first; nothing was changed", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        text: String,
    },
    /// Somebody has removed a part of our lines.
    #[error("{}, line {line}: our lines begin here and the comment at their end is missing: remove what is left of them by hand", path.display())]
    Unended {
        /// The file.
        path: PathBuf,
        /// The line of the beginning, from 1.
        line: usize,
    },
    /// Our tables cannot stand behind what the file has.
    #[error("{}: our tables cannot be added at its end ({text}): write the tables that lead to `runtimes` with headers in brackets; nothing was changed", path.display())]
    NotExtendable {
        /// The file.
        path: PathBuf,
        /// What would be wrong.
        text: String,
    },
    /// The engine refuses its configuration as it stands, without us.
    #[error("{program} does not accept {} as it is: {answer}: mend the file first; nothing was changed", path.display())]
    RefusedBefore {
        /// The engine's program.
        program: String,
        /// Its configuration file.
        path: PathBuf,
        /// What it says.
        answer: String,
    },
    /// The engine refuses what was written, and it was taken back.
    #[error("{program} does not accept {} with our part: {answer}: everything is as it was", path.display())]
    Refused {
        /// The engine's program.
        program: String,
        /// Its configuration file.
        path: PathBuf,
        /// What it says.
        answer: String,
    },
    /// A target that was named is not there.
    #[error("{engine} was not found: {looked}; nothing was changed")]
    NoEngine {
        /// The engine.
        engine: &'static str,
        /// Where it was looked for.
        looked: &'static str,
    },
    /// The record of an installation cannot be used.
    #[error("{}: {text}: `elastic-mem install` of the version that wrote it can read it; without the file, everything counts as not installed", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        text: String,
    },
    /// Containers would lose their runtime.
    #[error("containers of elastic-mem are there: {}: delete them first, or say --force, and then nothing can stop or delete them but the runtime itself", _0.join(", "))]
    InUse(Vec<String>),
    /// A command of the host failed.
    #[error("{command}: {answer}")]
    Command {
        /// The command with its arguments.
        command: String,
        /// What it says.
        answer: String,
    },
}

impl InstallError {
    pub(super) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }

    pub(super) fn syntax(path: &Path, mistake: Mistake) -> Self {
        Self::Syntax {
            path: path.to_owned(),
            line: mistake.line,
            text: mistake.text,
        }
    }
}

/// Result of installing.
pub type Result<T> = std::result::Result<T, InstallError>;
