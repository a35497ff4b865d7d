//! Log lines in the forms of runc and containerd.
//!
//! JSON: `{"level":"error","msg":"...","time":"..."}`. Text: `time="..." level=error msg="..."`. Messages of
//! libraries appear at the level `debug` only; their errors are kept for the account of a failure.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use chrono::{SecondsFormat, Utc};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::config::LogFormat;
use crate::runtime::account;

/// Where lines go, and from which level on.
#[derive(Debug)]
pub struct Sink {
    /// The form of a line.
    pub format: LogFormat,
    /// `None`: standard error.
    pub file: Option<File>,
    /// The least important level that is written.
    pub level: Level,
}

static INSTALLED: OnceLock<Arc<Sink>> = OnceLock::new();

/// Makes a sink the one that `tracing` writes to. Only the first of a process counts.
pub fn install(sink: Arc<Sink>) {
    let subscriber = tracing_subscriber::registry().with(ToSink(Arc::clone(&sink)));
    // A test may call main twice.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = INSTALLED.set(sink);
    }
}

/// Where this process logs, and in which form, for a process that is to log there too.
pub fn descriptor() -> Option<(OwnedFd, LogFormat)> {
    let sink = INSTALLED.get()?;
    let copy = match &sink.file {
        Some(file) => file.as_fd().try_clone_to_owned(),
        None => io::stderr().as_fd().try_clone_to_owned(),
    };
    Some((copy.ok()?, sink.format))
}

impl Sink {
    /// Writes a line. A log that cannot be written stops nothing.
    pub fn write(&self, level: &str, message: &str) {
        let time = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let line = match self.format {
            LogFormat::Json => {
                format!(
                    "{}\n",
                    serde_json::json!({"level": level, "msg": message, "time": time})
                )
            }
            LogFormat::Text => format!("time={time:?} level={level} msg={}\n", quote(message)),
        };
        // A log that cannot be written must not stop a container.
        let _ = match &self.file {
            Some(file) => { file }.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

struct ToSink(Arc<Sink>);

impl<S: Subscriber> Layer<S> for ToSink {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let meta = event.metadata();
        let ours = meta.target().starts_with("elastic_mem");
        let is_error = *meta.level() == Level::ERROR;
        let shown = if ours {
            *meta.level() <= self.0.level
        } else {
            self.0.level >= Level::DEBUG && *meta.level() <= Level::DEBUG
        };
        let kept = is_error && !ours;
        if !shown && !kept {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let message = text.finish();
        if kept {
            account::record(&message);
        }
        if !shown {
            return;
        }
        self.0.write(
            match *meta.level() {
                // The last error of the log is the reason of a failure; a library's is only a detail of it.
                Level::ERROR if !ours => "debug",
                Level::ERROR => "error",
                Level::WARN => "warning",
                Level::INFO => "info",
                _ => "debug",
            },
            &message,
        );
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.0.level.max(Level::ERROR)))
    }
}

/// The message of an event with its fields behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        match (self.message.is_empty(), self.fields.is_empty()) {
            (false, false) => format!("{}: {}", self.message, self.fields),
            _ => self.message + &self.fields,
        }
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            let comma = if self.fields.is_empty() { "" } else { ", " };
            write!(self.fields, "{comma}{}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_only_when_it_must_be() {
        assert_eq!(quote("plain"), "plain");
        assert_eq!(quote("two words"), "\"two words\"");
        assert_eq!(quote("a \"b\"\n"), "\"a \\\"b\\\"\\n\"");
        assert_eq!(quote(""), "\"\"");
    }
}
