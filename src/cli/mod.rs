//! The command line: runc's verbs and options, and the commands of our own.
//!
//! Exit codes: 0 done; the program's own for `run` and `exec`; 1 failed, wrong usage included; 2 when `doctor` found an
//! error; 255 when `exec` could not start the process. The last line of the log says why.

mod args;
mod characterize;
mod config;
mod cost;
mod doctor;
mod explain;
mod install;
mod log;
mod metrics;
mod output;
mod picture;
mod placement;
mod plot;
mod profile;
mod report;
mod survey;
mod top;
mod trace;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use serde_json::Value;

use crate::config::{Config, ConfigError, Mode, SystemdCgroup, main_file};
use crate::control;
use crate::guardian;
use crate::kernel::exe;
use crate::model::ContainerId;
use crate::monitor;
use crate::policy::identity::MODE;
use crate::runtime::{self, Additions, RuntimeError, Store, chain};
use crate::standin;
use args::config::ConfigVerb;
use args::{Args, Verb};

/// How long somebody who looks after a container may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A failure with the exit code it has and the words before it.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: text.into(),
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(err: E) -> Self {
        Self::new(chain(&err))
    }
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let program = program_name();
    if guardian::is_called() {
        return match guardian::main() {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                eprintln!("{program}: {reason}");
                ExitCode::FAILURE
            }
        };
    }
    if standin::is_runtime() {
        let words: Vec<OsString> = std::env::args_os().skip(1).collect();
        // Does not return if the call is not about a container of ours.
        if let Err(reason) = standin::runtime(&words) {
            log::record_usage_error(&reason);
            eprintln!("{program}: {reason}");
            return ExitCode::FAILURE;
        }
    }
    let args = match parse(&program) {
        Ok(args) => args,
        Err(code) => return code,
    };
    // A configuration that cannot be used must not stop containers: defaults, and a warning below.
    let (config, config_error) = match load_config(&args) {
        Ok(config) => (config, None),
        Err(err) => (Config::default(), Some(err)),
    };
    let log = match log::Log::start(&args, &config) {
        Ok(log) => log,
        Err(err) => {
            eprintln!("{program}: {}", chain(&err));
            return ExitCode::FAILURE;
        }
    };
    match (config_error, &args.verb) {
        (None, _) => {}
        (Some(err), Verb::Config(verb)) => {
            // `check` finds it, and all the others.
            if matches!(verb.verb, ConfigVerb::Show(_)) {
                log.fatal(&chain(&err));
                return ExitCode::FAILURE;
            }
        }
        // It says so itself.
        (Some(_), Verb::Doctor(_)) => {}
        (Some(err), _) => tracing::warn!("configuration not used: {}", chain(&err)),
    }
    match execute(&program, args, &config) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log.fatal(&failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// The file name under which we were called: callers look for it in messages.
fn program_name() -> String {
    std::env::args_os()
        .next()
        .as_deref()
        .map(Path::new)
        .and_then(Path::file_name)
        .map_or_else(
            || "elastic-mem".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
}

fn command(program: &str) -> clap::Command {
    let name: &'static str = Box::leak(program.to_owned().into_boxed_str());
    Args::command().name(name).bin_name(name)
}

fn parse(program: &str) -> Result<Args, ExitCode> {
    let result = command(program)
        .try_get_matches_from(args::without_rootless(std::env::args_os()))
        .and_then(|matches| Args::from_arg_matches(&matches));
    result.map_err(|err| {
        use clap::error::ErrorKind;
        let code = match err.kind() {
            // As runc.
            ErrorKind::InvalidSubcommand => 3,
            // The command alone asks for help, or a verb that has verbs of its own.
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                // Nobody is left to tell if standard output is closed.
                let _ = output::text(&err.render().to_string());
                return ExitCode::SUCCESS;
            }
            _ => u8::from(err.use_stderr()),
        };
        // Usage errors go to the log too when there is one: it is all that an engine reads.
        if err.use_stderr() {
            log::record_usage_error(&err.to_string());
        }
        // Nobody is left to tell if standard error is closed.
        let _ = err.print();
        ExitCode::from(code)
    })
}

/// Whether a container gets a control socket inside: only root can have somebody look after it.
fn wants_socket(config: &Config, root: &Path, id: &ContainerId, spec: &Value) -> bool {
    nix::unistd::geteuid().is_root()
        && control::wants_socket(config, &crate::placement::namespace(root), id, spec)
}

/// A container starts with its monitor or without.
fn leave_monitor(container: &runtime::Container, root: &Path, config: &Config) {
    // The monitor finds out about single functions.
    let all_off = config.memory_mode.value == Mode::Off && config.functions.is_empty();
    let annotation = container.state.annotations.get(MODE);
    let own_off =
        annotation.is_some_and(|mode| mode.trim() == Mode::Off.as_str()) && config.trusts(MODE);
    if all_off || own_off || container.status() != runtime::Status::Created {
        return;
    }
    match monitor::leave(container, root, config) {
        Ok(true) => {}
        Ok(false) => tracing::info!("the trace of this container begins late"),
        Err(reason) => tracing::warn!(reason, "no trace of this container"),
    }
}

fn load_config(args: &Args) -> Result<Config, ConfigError> {
    Config::load(&main_file(args.config.as_deref()))
}

fn execute(program: &str, args: Args, config: &Config) -> Result<u8, Failure> {
    let root = args
        .root
        .clone()
        .unwrap_or_else(|| config.root.value.clone());
    // `create` changes to the bundle folder; the state folder must not move with it.
    let root = std::path::absolute(&root).unwrap_or(root);
    let store = Store::new(&root);
    let systemd = match config.systemd_cgroup.value {
        SystemdCgroup::Auto => args.systemd_cgroup,
        SystemdCgroup::Always => true,
        SystemdCgroup::Never => false,
    };
    let find = |id: &str| -> Result<(ContainerId, runtime::Container), Failure> {
        let id: ContainerId = id.parse().map_err(RuntimeError::InvalidId)?;
        let container = store.load(&id).map_err(|err| match err {
            RuntimeError::NotFound => {
                Failure::new(format!("{err}: {id} (looked in {})", root.display()))
            }
            err => err.into(),
        })?;
        Ok((id, container))
    };
    let load = |id: &str| -> Result<runtime::Container, Failure> {
        let (id, container) = find(id)?;
        if !args.observed {
            control::restore(&id, &root);
        }
        Ok(container)
    };
    // What is done to a container may need memory. Our own shim has raised the limit already.
    let hold = |id: &ContainerId| (!args.observed).then(|| control::hold(id, &root));
    let load_held = |id: &str| -> Result<(runtime::Container, Option<control::Hold>), Failure> {
        let (id, container) = find(id)?;
        let hold = hold(&id);
        Ok((container, hold))
    };
    let around = |config_file| trace::Surroundings {
        config: config.clone(),
        config_file,
        root: root.clone(),
        systemd_cgroup: systemd,
        debug: args.debug,
    };
    match args.verb {
        Verb::Create(verb) => {
            let prefix = format!("{program} create failed");
            prepare(&prefix)?;
            // At most once a minute: what a tuner and its guardian owe that were killed together.
            control::sweep();
            let (id, options) = verb
                .options(systemd)
                .map_err(|err| prefixed(&prefix, &err, 1))?;
            let ratio = verb.local_ratio;
            let place = |spec: &mut Value| crate::placement::place(config, &root, &id, spec, ratio);
            let socket = |spec: &Value| wants_socket(config, &root, &id, spec);
            let additions = Additions {
                place: &place,
                socket: &socket,
            };
            runtime::create(&store, &id, &options, additions).map_err(|err| {
                leave_weights(&store, &root, &id);
                prefixed(&prefix, &err, 1)
            })?;
        }
        Verb::Run(verb) => {
            let prefix = format!("{program} run failed");
            prepare(&prefix)?;
            let (id, options) = verb
                .create
                .options(systemd)
                .map_err(|err| prefixed(&prefix, &err, 1))?;
            let ratio = verb.create.local_ratio;
            let place = |spec: &mut Value| crate::placement::place(config, &root, &id, spec, ratio);
            let additions = Additions {
                place: &place,
                // A container that is run has nobody who looks after it.
                socket: &|_| false,
            };
            let code = runtime::run(&store, &id, &options, additions, verb.detach, verb.keep);
            leave_weights(&store, &root, &id);
            let code = code.map_err(|err| prefixed(&prefix, &err, 1))?;
            return Ok(exit_code(code));
        }
        Verb::Exec(verb) => {
            prepare("exec failed")?;
            let fail = |err: &RuntimeError| prefixed("exec failed", err, 255);
            let id: ContainerId = verb
                .id
                .parse()
                .map_err(|err| fail(&RuntimeError::InvalidId(err)))?;
            let container = store.load(&id).map_err(|err| fail(&err))?;
            let options = verb.options().map_err(|err| fail(&err))?;
            let _hold = hold(&id);
            let code = runtime::exec(&container, &options).map_err(|err| fail(&err))?;
            return Ok(exit_code(code));
        }
        Verb::Start(verb) => {
            crate::placement::sweep();
            let container = load(&verb.id.id)?;
            let is_ours = !args.observed && nix::unistd::geteuid().is_root();
            if is_ours {
                leave_monitor(&container, &root, config);
            }
            if let Some(file) = &verb.after
                && let Err(err) = std::fs::read(file)
            {
                tracing::warn!("did not wait for {}: {err}", file.display());
            }
            runtime::start(&container)?;
        }
        Verb::State(verb) => output::json(&runtime::state(&load(&verb.id)?))?,
        Verb::Kill(verb) => {
            let signal = verb.signal()?;
            let (container, _hold) = load_held(&verb.id)?;
            runtime::kill(&container, signal, verb.all)?;
        }
        Verb::Delete(verb) => {
            let id: ContainerId = verb.id.parse().map_err(RuntimeError::InvalidId)?;
            let _hold = hold(&id);
            runtime::delete(&store, &id, verb.force)?;
            crate::placement::forget(&root, &id);
            if !args.observed {
                control::forget(&id, &root);
            }
        }
        Verb::Pause(verb) => {
            let (container, _hold) = load_held(&verb.id)?;
            runtime::pause(&container)?;
        }
        Verb::Resume(verb) => runtime::resume(&load(&verb.id)?)?,
        Verb::Ps(verb) => {
            let (format, ps_args) = verb.split();
            let container = load(&verb.id)?;
            match format {
                args::Format::Json => output::json_list(&runtime::processes(&container)?)?,
                args::Format::Table => {
                    output::text(&runtime::process_table(&container, &ps_args)?)?
                }
            }
        }
        Verb::List(verb) => {
            // A folder that somebody named should be there; the default one appears with the first container.
            if args.root.is_some() {
                std::fs::read_dir(&root).map_err(|err| {
                    Failure::new(format!(
                        "list {}: {}",
                        root.display(),
                        crate::kernel::reason(&err)
                    ))
                })?;
            }
            list(&store, &verb)?;
        }
        Verb::Update(verb) => {
            let (container, _hold) = load_held(&verb.id)?;
            match &verb.resources {
                Some(path) => runtime::update_from(&container, path)?,
                None => runtime::update(&container, &verb.options())?,
            }
        }
        Verb::Events(verb) => events(&load(&verb.id)?, &verb)?,
        Verb::Spec(verb) => spec(&verb)?,
        Verb::Features => output::json(&runtime::features())?,
        Verb::Checkpoint(_) => return Err(Failure::new("checkpoint is not supported")),
        Verb::Restore(_) => return Err(Failure::new("restore is not supported")),
        Verb::Config(verb) => match verb.verb {
            ConfigVerb::Show(verb) => config::show(&verb, config)?,
            ConfigVerb::Check(verb) => config::check(&verb, args.config.as_deref())?,
        },
        Verb::Explain(verb) => {
            let given = args.root.as_ref().map(|_| root.clone());
            let roots = explain::Roots { given, usual: root };
            explain::run(&verb, &roots, config)?;
        }
        Verb::Placement(verb) => {
            let given = args.root.as_ref().map(|_| root.clone());
            placement::run(&verb, &explain::Roots { given, usual: root })?;
        }
        Verb::Weights(verb) => placement::weights(&verb)?,
        Verb::Doctor(verb) => return doctor::run(&verb, args.config.as_deref()),
        Verb::Cost(verb) => cost::run(&verb, config)?,
        Verb::Profile(verb) => return profile::run(&verb, config),
        Verb::Trace(verb) => trace::run(&verb, around(args.config))?,
        Verb::Characterize(verb) => characterize::run(&verb, around(args.config))?,
        Verb::Plot(verb) => plot::run(&verb, config)?,
        Verb::Metrics(verb) => metrics::run(&verb)?,
        Verb::Report(verb) => report::run(&verb, config)?,
        Verb::Top(verb) => top::run(&verb)?,
        Verb::Phase(verb) => tell(&verb.container, &verb.request().map_err(Failure::new)?)?,
        Verb::Bind(verb) => tell(&verb.container, &verb.request())?,
        Verb::Install(verb) => install::run_install(&verb, &command("elastic-mem"))?,
        Verb::Uninstall(verb) => install::run_uninstall(&verb)?,
        Verb::Completions(verb) => output::completions(&mut command(program), verb.shell)?,
        Verb::Man(verb) => output::man_pages(&command(program), &verb.folder)?,
    }
    Ok(0)
}

/// A container that was not created, or that has ended and was removed, relies on no weights.
fn leave_weights(store: &Store, root: &Path, id: &ContainerId) {
    if matches!(store.load(id), Err(RuntimeError::NotFound)) {
        crate::placement::forget(root, id);
    }
}

/// Tells something to whoever looks after a container.
fn tell(container: &args::Addressee, request: &control::Request) -> Result<(), Failure> {
    let id: ContainerId = container.id.parse()?;
    let found = control::by_name(&id, container.namespace.as_deref())?;
    control::Client::connect(&found.folder, ANSWER)?.ask(request)?;
    Ok(())
}

/// What every verb that starts a process inside a container needs first.
fn prepare(prefix: &str) -> Result<(), Failure> {
    exe::protect().map_err(|err| {
        Failure::new(format!(
            "{prefix}: cannot protect this executable from the container: {err}"
        ))
    })?;
    exe::forget_mark();
    runtime::account::begin();
    Ok(())
}

fn prefixed(prefix: &str, err: &RuntimeError, code: u8) -> Failure {
    Failure {
        code,
        text: format!("{prefix}: {}", chain(err)),
    }
}

fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(255)
}

fn list(store: &Store, verb: &args::List) -> Result<(), Failure> {
    let reports = runtime::list(store)?;
    if verb.quiet {
        let ids: String = reports
            .iter()
            .map(|report| format!("{}\n", report.id))
            .collect();
        return Ok(output::text(&ids)?);
    }
    match verb.format {
        args::Format::Json => Ok(output::json_list(&reports)?),
        args::Format::Table => Ok(output::text(&output::container_table(&reports))?),
    }
}

fn events(container: &runtime::Container, verb: &args::Events) -> Result<(), Failure> {
    if verb.interval.is_zero() {
        return Err(Failure::new("duration interval must be greater than 0"));
    }
    output::json_line(&runtime::stats_event(container)?)?;
    if verb.stats {
        return Ok(());
    }
    let mut watch = runtime::OomWatch::new(container);
    let mut until_stats = verb.interval;
    // Ends by itself with the container; the watch for OOM kills is finer than the interval.
    let pause = Duration::from_millis(100);
    loop {
        let step = pause.min(until_stats);
        let ended = match container.init() {
            Some(init) => init.wait_ended(step)?,
            None => true,
        };
        if let Some(event) = watch.look(container) {
            output::json_line(&event)?;
        }
        if ended {
            return Ok(());
        }
        until_stats = until_stats.saturating_sub(step);
        if until_stats.is_zero() {
            match runtime::stats_event(container) {
                Ok(event) => output::json_line(&event)?,
                Err(RuntimeError::NoCounters(_)) => return Ok(()),
                Err(err) => return Err(err.into()),
            }
            until_stats = verb.interval;
        }
    }
}

fn spec(verb: &args::Spec) -> Result<(), Failure> {
    let folder = verb.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let path = folder.join("config.json");
    let text = serde_json::to_string_pretty(&runtime::default_config(verb.rootless))?;
    let file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path);
    let written = file.and_then(|mut file| {
        use std::io::Write;
        writeln!(file, "{text}")
    });
    match written {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::new(format!(
            "File {} exists. Remove it first",
            path.display()
        ))),
        other => other.map_err(|err| Failure::new(format!("write {}: {err}", path.display()))),
    }
}

/// The value of a global option before the command line is understood as a whole.
fn raw_option(name: &str) -> Option<OsString> {
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if text == name {
            return args.next();
        }
        if let Some(value) = text
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
        {
            return Some(value.into());
        }
    }
    None
}
