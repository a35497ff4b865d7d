//! Loggers: programs that containerd's clients name to take the output of a container (`binary://`).
//!
//! The program gets standard output as descriptor 3, standard error as 4, and closes 5 when it is ready
//! (containerd, `runtime/v2/logging`).

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::children::Helper;
use super::error::{Result, ShimError};
use super::stdio::Context;
use crate::kernel::children::give_descriptors;
use crate::kernel::process::signal_pid;
use nix::libc;

/// How long a logger may take to say that it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to notice that there is no more output.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// How long it may take to end after SIGTERM.
const TERM_PATIENCE: Duration = Duration::from_secs(12);

/// A logger that runs.
#[derive(Debug)]
pub(super) struct Logger {
    helper: Helper,
}

impl Logger {
    /// Starts the program of a `binary://` URI; the ends that the container writes to are returned.
    ///
    /// # Errors
    /// `Failed` when it cannot be executed or is not ready in time, `Invalid` without a path.
    pub(super) async fn start(
        uri: &str,
        context: &Context<'_>,
    ) -> Result<(Self, OwnedFd, OwnedFd)> {
        let fail = |err: io::Error| {
            ShimError::Failed(format!(
                "start logger {uri}: {}",
                crate::kernel::reason(&err)
            ))
        };
        let (program, arguments) = parse(uri)?;
        let (out_reader, out_writer) = io::pipe().map_err(fail)?;
        let (err_reader, err_writer) = io::pipe().map_err(fail)?;
        let (ready_reader, ready_writer) = io::pipe().map_err(fail)?;
        let mut helper = {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .env("CONTAINER_ID", context.id)
                .env("CONTAINER_NAMESPACE", context.namespace)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let given = vec![out_reader.into(), err_reader.into(), ready_writer.into()];
            give_descriptors(&mut command, given)
                .and_then(|()| context.children.start(&mut command))
                .map_err(fail)?
        };
        let ready = pipe::Receiver::from_owned_fd(ready_reader.into()).map_err(fail)?;
        // One byte, or the end: both mean ready.
        match timeout(READY_PATIENCE, ready.readable()).await {
            Ok(result) => result.map_err(fail)?,
            Err(_) => {
                let _ = signal_pid(helper.pid, libc::SIGKILL);
                helper.ended().await;
                return Err(ShimError::Failed(format!(
                    "start logger {uri}: not ready after {} s",
                    READY_PATIENCE.as_secs()
                )));
            }
        }
        Ok((Self { helper }, out_writer.into(), err_writer.into()))
    }

    /// Lets it write what is left, then sees that it ends.
    pub(super) async fn finish(mut self) {
        for (patience, signal) in [
            (END_PATIENCE, libc::SIGTERM),
            (TERM_PATIENCE, libc::SIGKILL),
        ] {
            if timeout(patience, self.helper.ended()).await.is_ok() {
                return;
            }
            // It may have ended just now.
            let _ = signal_pid(self.helper.pid, signal);
        }
        self.helper.ended().await;
    }
}

/// The program, and the pairs of the query as arguments.
fn parse(uri: &str) -> Result<(String, Vec<String>)> {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Err(ShimError::Invalid(format!(
            "logger {uri:?}: the path of the program must be absolute"
        )));
    }
    let mut arguments = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        arguments.push(decode(&key.replace('+', " ")));
        if !value.is_empty() {
            arguments.push(decode(&value.replace('+', " ")));
        }
    }
    Ok((decode(path), arguments))
}

/// Undoes percent-encoding (RFC 3986, section 2.1); what is none stays as it is.
pub(super) fn decode(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = match (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (Some(high), Some(low)) if *byte == b'%' => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        out.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_becomes_arguments() {
        let (program, arguments) =
            parse("binary:///usr/bin/nerd%20ctl?_NERDCTL=1&flag&a=b+c").unwrap();
        assert_eq!(program, "/usr/bin/nerd ctl");
        assert_eq!(arguments, ["_NERDCTL", "1", "flag", "a", "b c"]);
        assert!(parse("binary://relative").is_err());
    }

    #[test]
    fn only_percent_encoding_is_decoded() {
        assert_eq!(decode("a%2Fb%zz%4"), "a/b%zz%4");
    }
}
