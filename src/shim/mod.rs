//! The containerd shim: stands between containerd and the containers of one pod for as long as they live.
//!
//! containerd calls the executable under the name `containerd-shim-elastic-mem-v1`, or under that of runc's shim where
//! ours stands in for it (`standin`). `start` (`bootstrap`)
//! leaves a server behind and tells its address; `delete` (`remains`) cleans up after a server that has
//! gone. The server (`server`) answers the Task service (`service`, `shim`), reaps all processes
//! (`children`), and tells containerd what happens (`events`).
//!
//! One thread does all that; another one samples the memory of the containers (`observe`). It never creates a
//! container itself: each verb of the runtime is a process of its own (`engine`), since libcontainer forks.

mod args;
mod bootstrap;
mod bundle;
mod children;
mod container;
mod create;
mod doors;
mod engine;
mod error;
mod events;
mod launch;
mod logger;
mod metrics;
mod observe;
mod options;
mod process;
mod remains;
mod rootfs;
mod server;
mod service;
#[allow(clippy::module_inception, reason = "the shim itself")]
mod shim;
mod start;
mod stdio;
mod terminal;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use args::{Action, Args};

use crate::standin;

/// How containerd calls a shim begins with this (containerd, `runtime/v2/README.md`, "Binary naming").
const PREFIX: &str = "containerd-shim-";

/// Whether this process was called by the name of a shim.
pub fn is_called() -> bool {
    program_name().starts_with(PREFIX)
}

fn program_name() -> String {
    std::env::args_os()
        .next()
        .as_deref()
        .map(Path::new)
        .and_then(Path::file_name)
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Runs the shim of this process.
pub fn main() -> ExitCode {
    let name = program_name();
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Does not return if the call is not about a container of ours.
    let ours = match name == standin::SHIM {
        true => standin::shim(&words),
        false => Ok(()),
    };
    let args = ours.and_then(|()| Args::parse(words.into_iter()));
    let result = args.and_then(|args| match args.action {
        Action::Version => reply(version(&name).as_bytes()),
        Action::Info => bootstrap::info(name == standin::SHIM).and_then(|bytes| reply(&bytes)),
        Action::Start => bootstrap::start(&args).and_then(|bytes| reply(&bytes)),
        Action::Delete => remains::delete(&args).and_then(|bytes| reply(&bytes)),
        Action::Serve => server::serve(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            // Nobody is left to tell if it is closed.
            let _ = writeln!(std::io::stderr(), "{name}: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The answer, and nothing besides: containerd reads both output streams together.
fn reply(bytes: &[u8]) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|err| format!("write the answer: {err}"))
}

fn version(name: &str) -> String {
    format!("{name}:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"))
}
