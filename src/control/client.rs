//! A connection to whoever looks after the memory of a container.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::error::{ControlError, Result};
use super::message::{Answer, Request};
use super::record::Folder;
use crate::kernel::socket;

/// No answer is longer.
const LONGEST_ANSWER: u64 = 64 << 10;

/// A connection. What was asked for lasts as long as it does.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    deadline: Instant,
}

impl Client {
    /// Connects to the socket of a container. All that is asked over the connection has to be answered within `patience`.
    ///
    /// # Errors
    /// `NoAnswer`.
    pub fn connect(folder: &Folder, patience: Duration) -> Result<Self> {
        let path = folder.socket();
        let deadline = Instant::now() + patience;
        match socket::connect(&path, patience) {
            Ok(stream) => Ok(Self {
                stream,
                path,
                deadline,
            }),
            Err(source) => Err(ControlError::NoAnswer { path, source }),
        }
    }

    /// Says something and waits for the answer; what it holds besides.
    ///
    /// # Errors
    /// `Refused` with the reason of whoever answers, `NoAnswer`.
    pub fn ask(&mut self, request: &Request) -> Result<Map<String, Value>> {
        let line = request.line().map_err(ControlError::Encode)?;
        let answer = self
            .exchange(&line)
            .map_err(|source| ControlError::NoAnswer {
                path: self.path.clone(),
                source,
            })?;
        answer.into_result().map_err(ControlError::Refused)
    }

    fn exchange(&mut self, line: &str) -> io::Result<Answer> {
        // The time to write was limited with the time to connect.
        self.stream.write_all(line.as_bytes())?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Zero would mean no limit.
        self.stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut answer = String::new();
        let mut reader = BufReader::new(&self.stream).take(LONGEST_ANSWER);
        if reader.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }
}
