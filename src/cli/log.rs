//! The log of a command: engines read the last error from it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::Level;

use super::args::Args;
use crate::config::{Config, LogFormat, LogLevel};
use crate::log::{self, Sink};
use crate::runtime::RuntimeError;

/// The log of this process.
pub(super) struct Log(Arc<Sink>);

impl Log {
    /// Opens the log and makes it the one that `tracing` writes to.
    pub(super) fn start(args: &Args, config: &Config) -> Result<Self, RuntimeError> {
        let level = match config.log_level.value {
            _ if args.debug => Level::DEBUG,
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warning => Level::WARN,
            LogLevel::Error => Level::ERROR,
        };
        let sink = Arc::new(Sink {
            format: args.log_format.unwrap_or(config.log_format.value),
            file: args.log.as_deref().map(open).transpose()?.flatten(),
            level,
        });
        log::install(Arc::clone(&sink));
        Ok(Self(sink))
    }

    /// Says why the command failed: in the log, and on standard error if that is not the log.
    pub(super) fn fatal(&self, text: &str) {
        self.0.write("error", text);
        if self.0.file.is_some() {
            // Nobody is left to tell if it is closed.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// Writes a usage error to the log that the command line names, though the rest of it is not understood.
pub(super) fn record_usage_error(text: &str) {
    let Some(path) = super::raw_option("--log") else {
        return;
    };
    let json = super::raw_option("--log-format").is_some_and(|format| format == "json");
    let first = text.lines().next().unwrap_or_default();
    if let Ok(Some(file)) = open(&PathBuf::from(path)) {
        let sink = Sink {
            format: if json {
                LogFormat::Json
            } else {
                LogFormat::Text
            },
            file: Some(file),
            level: Level::ERROR,
        };
        sink.write("error", first.trim_start_matches("error: "));
    }
}

fn open(path: &Path) -> Result<Option<File>, RuntimeError> {
    if path.as_os_str().is_empty() || path == Path::new("/dev/stderr") {
        return Ok(None);
    }
    File::options()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .map(Some)
        .map_err(|err| RuntimeError::io("open log", path, err))
}
