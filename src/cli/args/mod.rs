//! Options and arguments, as runc has them. Options may stand before or after the container's name.

mod characterize;
pub(super) mod config;
mod control;
mod cost;
pub(super) mod doctor;
mod exec;
mod explain;
mod install;
mod metrics;
pub(super) mod placement;
mod plot;
pub(super) mod profile;
mod report;
mod top;
mod trace;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use nix::sys::signal::Signal;

use crate::config::LogFormat;
use crate::model::ContainerId;
use crate::model::placement::LocalRatio;
use crate::runtime::{CreateOptions, RuntimeError};
pub(super) use characterize::Characterize;
use config::Config;
pub(super) use control::{Addressee, Bind, Phase};
pub(super) use cost::{Cost, Measured};
use doctor::Doctor;
pub(super) use exec::Exec;
pub(super) use explain::Explain;
pub(super) use install::{Install, Uninstall};
pub(super) use metrics::Metrics;
use placement::{Placement, Weights};
pub(super) use plot::{
    Files as PlotFiles, Hull as PlotHull, Inputs as PlotInputs, Kind as PlotKind, Plot,
    Run as PlotRun, Target,
};
use profile::Profile;
pub(super) use report::Report;
pub(super) use top::{SortKey, Top};
pub(super) use trace::{Function, Trace, TraceFormat};
pub(super) use update::Update;

const ABOUT: &str = "OCI runtime for serverless functions with elastic memory";

#[derive(Debug, Parser)]
#[command(version = VERSION, about = ABOUT, subcommand_required = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = false, max_term_width = 110)]
pub(super) struct Args {
    /// Folder for the state of containers, best on a tmpfs
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) root: Option<PathBuf>,
    /// File for the log; standard error if absent
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, global = true, value_enum)]
    pub(super) log_format: Option<LogFormat>,
    /// Configuration file in place of $ELASTIC_MEM_CONFIG or /etc/elastic-mem/config.toml; the folder config.d beside it is read too
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Log what is done in detail
    #[arg(long, global = true)]
    pub(super) debug: bool,
    /// Let systemd make control groups; cgroupsPath is then slice:prefix:name
    #[arg(long, global = true)]
    pub(super) systemd_cgroup: bool,
    /// Accepted for callers of runc; there is no checkpoint
    #[arg(long, global = true, hide = true, value_name = "PATH")]
    criu: Option<PathBuf>,
    /// The caller looks after the container's memory
    #[arg(long, global = true, hide = true)]
    pub(super) observed: bool,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Version of the program and of the specification, in the lines that engines read from `runc --version`.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Leaves out the global `--rootless` of runc, whose name the verb `spec` uses for something else.
///
/// Whether we run without privileges is found out, not told.
pub(super) fn without_rootless(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut out = Vec::new();
    let mut args = args.peekable();
    let mut before_verb = true;
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if before_verb && !out.is_empty() {
            if text.starts_with("--rootless=") {
                continue;
            }
            if text == "--rootless" {
                args.next_if(|next| ["true", "false", "auto"].iter().any(|word| next == word));
                continue;
            }
            if ["--root", "--log", "--log-format", "--config", "--criu"].contains(&&*text) {
                out.push(arg);
                out.extend(args.next());
                continue;
            }
            before_verb = text.starts_with('-');
        }
        out.push(arg);
    }
    out
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(match self {
            Self::Text => "text",
            Self::Json => "json",
        }))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a container; `start` runs its program
    Create(Create),
    /// Run the program of a created container
    Start(Start),
    /// Print the state of a container as JSON
    State(Id),
    /// Send a signal to a container's init process
    Kill(Kill),
    /// Remove a container that has stopped
    Delete(Delete),
    /// Run another process in a running container
    Exec(Box<Exec>),
    /// Create a container, run its program, remove it
    Run(Run),
    /// List the processes of a container
    Ps(Ps),
    /// Freeze all processes of a container
    Pause(Id),
    /// Thaw a paused container
    Resume(Id),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print counters and OOM events of a container
    Events(Events),
    /// List containers
    List(List),
    /// Write a config.json to begin with
    Spec(Spec),
    /// Print what this runtime can do as JSON
    Features,
    /// Not supported
    Checkpoint(Anything),
    /// Not supported
    Restore(Anything),
    /// Show the configuration and where each value comes from, or look for mistakes in it
    Config(Config),
    /// Tell what is done with the memory of a container, and why
    Explain(Explain),
    /// Tell where the memory of a container lies, and where it should
    Placement(Placement),
    /// Show, set and release the interleave weights of the host
    Weights(Weights),
    /// Look at this host: what has to hold, what does not, and what to do about it
    Doctor(Doctor),
    /// Compute what a function costs at providers, and how much of it is wasted
    Cost(Box<Cost>),
    /// Look at and change what is known of functions
    Profile(Profile),
    /// Run a function, or attach to a container, and trace its memory
    Trace(Box<Trace>),
    /// Measure a function at several local ratios, and choose one under a latency bound
    Characterize(Box<Characterize>),
    /// Draw memory over time: hulls, shapes, classes, inputs, runs
    Plot(Plot),
    /// Show the memory of all containers of this host, live
    Top(Top),
    /// Print the figures of all containers of this host for Prometheus
    Metrics(Metrics),
    /// Write a page of HTML about a function or this host
    Report(Report),
    /// Say that a request of a function begins or ends in a container
    Phase(Phase),
    /// Say which function a container is an instance of, after its start
    Bind(Bind),
    /// Put the program onto this host, and tell the container engines of it
    Install(Install),
    /// Take out what `install` has done
    Uninstall(Uninstall),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write man pages
    Man(Man),
}

#[derive(Debug, ClapArgs)]
pub(super) struct Id {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(super) id: String,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Start {
    #[command(flatten)]
    pub(super) id: Id,
    /// Wait for the end of this file, a pipe of whoever calls
    #[arg(long, hide = true, value_name = "PATH")]
    pub(super) after: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Create {
    /// Name of the new container
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// Bundle folder
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    bundle: PathBuf,
    /// Unix socket that gets the master end of the container's terminal
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// File that gets the process id of init
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,
    /// Move the root instead of pivoting, for a root file system on a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// Place its memory at this local ratio, whatever the configuration says
    #[arg(long, value_name = "RATIO", hide = true)]
    pub(super) local_ratio: Option<LocalRatio>,
    /// Pass N further descriptors after standard error
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

impl Create {
    pub(super) fn options(
        &self,
        systemd_cgroup: bool,
    ) -> Result<(ContainerId, CreateOptions), RuntimeError> {
        let absolute = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        let options = CreateOptions {
            bundle: self.bundle.clone(),
            console_socket: absolute(&self.console_socket),
            pid_file: absolute(&self.pid_file),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            systemd_cgroup,
        };
        Ok((self.id.parse()?, options))
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) create: Create,
    /// Return once the program runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Do not remove the container when it ends
    #[arg(long)]
    pub(super) keep: bool,
    /// Accepted for callers of runc; orphans of the container are always collected in the foreground
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Kill {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(super) id: String,
    /// Name or number of the signal
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    signal: String,
    /// Signal all processes of the container
    #[arg(short, long)]
    pub(super) all: bool,
}

impl Kill {
    /// The signal's number.
    pub(super) fn signal(&self) -> Result<i32, RuntimeError> {
        let unknown = || RuntimeError::Usage(format!("unknown signal {:?}", self.signal));
        if let Ok(number) = self.signal.parse() {
            return Some(number)
                .filter(|n| (0..=64).contains(n))
                .ok_or_else(unknown);
        }
        let name = self.signal.to_ascii_uppercase();
        let name = if name.starts_with("SIG") {
            name
        } else {
            format!("SIG{name}")
        };
        if let Ok(signal) = Signal::from_str(&name) {
            return Ok(signal as i32);
        }
        realtime(name.strip_prefix("SIG").unwrap_or(&name)).ok_or_else(unknown)
    }
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-1` (signal(7)).
fn realtime(name: &str) -> Option<i32> {
    let (base, rest) = match name.strip_prefix("RTMIN") {
        Some(rest) => (libc::SIGRTMIN(), rest),
        None => (libc::SIGRTMAX(), name.strip_prefix("RTMAX")?),
    };
    let offset: i32 = if rest.is_empty() {
        0
    } else {
        rest.parse().ok()?
    };
    base.checked_add(offset)
        .filter(|n| (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(n))
}

#[derive(Debug, ClapArgs)]
pub(super) struct Delete {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(super) id: String,
    /// Also when it runs (SIGKILL), or when it is not known
    #[arg(short, long)]
    pub(super) force: bool,
}

/// Form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// JSON for programs
    Json,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Ps {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(super) id: String,
    /// Form of the list
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// Options of ps(1) for the table
    #[arg(
        value_name = "PS OPTION",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    ps_args: Vec<String>,
}

impl Ps {
    /// The form, and the options of ps. After the container's name both stand among the options of ps.
    pub(super) fn split(&self) -> (Format, Vec<String>) {
        let mut format = self.format;
        let mut rest = Vec::new();
        let mut args = self.ps_args.iter().peekable();
        while let Some(arg) = args.next() {
            let value = match arg.as_str() {
                "--format" => args.next().map(String::as_str),
                "-f" => match args.peek().map(|next| next.as_str()) {
                    Some("json" | "table") => args.next().map(String::as_str),
                    _ => None,
                },
                arg => arg.strip_prefix("--format="),
            };
            match value {
                Some("json") => format = Format::Json,
                Some("table") => format = Format::Table,
                _ => rest.push(arg.clone()),
            }
        }
        (format, rest)
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct List {
    /// Form of the list
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) format: Format,
    /// Names only
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Events {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(super) id: String,
    /// Time between two lines of counters
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = crate::model::duration::parse)]
    pub(super) interval: Duration,
    /// Print the counters once
    #[arg(long)]
    pub(super) stats: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Spec {
    /// Bundle folder
    #[arg(short, long, value_name = "PATH")]
    pub(super) bundle: Option<PathBuf>,
    /// For a user without privileges
    #[arg(long)]
    pub(super) rootless: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _args: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Man {
    /// Folder to write to
    #[arg(value_name = "FOLDER")]
    pub(super) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Args {
        let words = std::iter::once("elastic-mem").chain(words.iter().copied());
        Args::try_parse_from(without_rootless(words.map(OsString::from))).unwrap()
    }

    #[test]
    fn the_definitions_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_version_names_the_specification_in_force() {
        assert!(VERSION.ends_with(crate::runtime::OCI_VERSION));
    }

    #[test]
    fn options_may_follow_the_name() {
        let Verb::Create(create) = parse(&["create", "c1", "--bundle", "/b", "--no-pivot"]).verb
        else {
            panic!("not create");
        };
        let (id, options) = create.options(false).unwrap();
        assert_eq!(id.as_str(), "c1");
        assert_eq!(options.bundle, PathBuf::from("/b"));
        assert!(options.no_pivot);
    }

    #[test]
    fn what_follows_the_program_belongs_to_it() {
        let Verb::Exec(exec) = parse(&["exec", "-d", "c1", "--tty", "ls", "-l", "--debug"]).verb
        else {
            panic!("not exec");
        };
        let options = exec.options().unwrap();
        assert!(options.detach && options.tty);
        assert_eq!(options.args, ["ls", "-l", "--debug"]);
    }

    #[test]
    fn ps_options_pass_through_but_for_the_format() {
        let Verb::Ps(ps) = parse(&["ps", "c1", "-o", "pid", "--format", "json"]).verb else {
            panic!("not ps");
        };
        assert_eq!(
            ps.split(),
            (Format::Json, vec!["-o".to_owned(), "pid".to_owned()])
        );
    }

    #[test]
    fn signals_by_name_number_and_realtime_name() {
        let signal = |text: &str| {
            let Verb::Kill(kill) = parse(&["kill", "c1", text]).verb else {
                panic!("not kill");
            };
            kill.signal().ok()
        };
        assert_eq!(signal("KILL"), Some(9));
        assert_eq!(signal("sigterm"), Some(15));
        assert_eq!(signal("10"), Some(10));
        assert_eq!(signal("RTMIN+1"), Some(libc::SIGRTMIN() + 1));
        assert_eq!(signal("nonsense"), None);
        assert_eq!(signal("99"), None);
    }

    #[test]
    fn callers_of_runc_can_say_rootless() {
        parse(&["--rootless=auto", "list"]);
        parse(&["--root", "/r", "--rootless", "true", "list"]);
        parse(&["--rootless", "list"]);
        let Verb::Spec(spec) = parse(&["spec", "--rootless"]).verb else {
            panic!("not spec");
        };
        assert!(spec.rootless);
    }
}
