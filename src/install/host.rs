//! Where things are on a host, or below a folder that will be the root of one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cri::{Mistake, Release};
use super::error::{InstallError, Result};
use super::record::{self, Entry, Record};
use super::unit::DEFAULT_PATH;
use super::{Part, block, daemon_json, files};

/// The line with which a template of k3s and rke2 takes in their own configuration.
pub(super) const BASE_TEMPLATE: &str = "{{ template \"base\" . }}";
/// The name of the shim; containerd makes it from `io.containerd.elastic-mem.v1`.
pub(super) const SHIM: &str = "containerd-shim-elastic-mem-v1";
/// The name of the command.
pub(super) const COMMAND: &str = "elastic-mem";

/// A host, and where the files of this installation are on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Stands for the root of the host, as for a packager or an image.
    pub destdir: Option<PathBuf>,
    /// The folder above `bin` and `share`.
    pub prefix: PathBuf,
    /// The folder above `elastic-mem` with our configuration.
    pub sysconfdir: PathBuf,
    /// The configuration file of containerd.
    pub containerd_config: PathBuf,
    /// The configuration file of Docker.
    pub docker_config: PathBuf,
}

/// A file as it is, and as it would be without us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) current: Option<String>,
    pub(super) base: Option<String>,
    /// Whether somebody has changed it since we wrote it.
    pub(super) is_changed: bool,
}

impl Host {
    /// Where a path of the host is here.
    pub(super) fn here(&self, path: &Path) -> PathBuf {
        match &self.destdir {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// The folder of our configuration and record.
    pub(super) fn folder(&self) -> PathBuf {
        self.sysconfdir.join("elastic-mem")
    }

    pub(super) fn record_file(&self) -> PathBuf {
        self.here(&self.folder().join(record::NAME))
    }

    /// Our configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.folder().join("config.toml")
    }

    /// Our configuration file, if it is not where it is looked for anyway.
    pub(super) fn unusual_config(&self) -> Option<PathBuf> {
        let config = self.config();
        (config != Path::new(crate::config::DEFAULT_PATH)).then_some(config)
    }

    pub(super) fn command(&self) -> PathBuf {
        self.prefix.join("bin").join(COMMAND)
    }

    pub(super) fn shim(&self) -> PathBuf {
        self.prefix.join("bin").join(SHIM)
    }

    /// The shim, if services do not find it by name.
    pub(super) fn unusual_shim(&self) -> Option<PathBuf> {
        let folder = self.prefix.join("bin");
        let is_usual = DEFAULT_PATH
            .split(':')
            .any(|usual| Path::new(usual) == folder);
        (!is_usual).then(|| self.shim())
    }

    /// A program of the host. Below a folder only its own programs count.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        let own = std::env::var("PATH").unwrap_or_default();
        let own = match &self.destdir {
            Some(_) => "",
            None => own.as_str(),
        };
        let folders = own.split(':').chain(DEFAULT_PATH.split(':'));
        let folders = folders.filter(|folder| folder.starts_with('/'));
        let paths = folders.map(|folder| self.here(&Path::new(folder).join(name)));
        let mut found = paths.filter(|path| {
            path.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        });
        found.next()
    }

    /// A file as it is and as it would be without us.
    pub(super) fn find(&self, record: &Record, part: Part, path: &Path) -> Result<Found> {
        let current = files::read_text(&self.here(path))?;
        let entry = record.entry(path);
        let backup = entry.and_then(|entry| entry.backup.as_deref());
        let backup = match backup {
            Some(backup) => files::read_text(&self.here(backup))?,
            None => None,
        };
        let Some(text) = current else {
            return Ok(Found {
                current: None,
                base: None,
                is_changed: entry.is_some(),
            });
        };
        let is_ours = |entry: &Entry| entry.sha256 == Some(files::digest(text.as_bytes()));
        let is_made = entry.is_some_and(|entry| entry.backup.is_none());
        let is_as_written = entry.is_some_and(is_ours);
        // A backup that somebody has removed does not turn the file into one that we have made.
        let base = match is_as_written && (is_made || backup.is_some()) {
            true => backup,
            false => {
                let rest = without(part, path, &text, backup.as_deref())?;
                Some(rest).filter(|rest| !(is_made && is_nothing(rest)))
            }
        };
        Ok(Found {
            is_changed: entry.is_some() && !is_as_written && base.as_deref() != Some(&text),
            base,
            current: Some(text),
        })
    }
}

/// A text without our part.
fn without(part: Part, path: &Path, text: &str, before: Option<&str>) -> Result<String> {
    if part == Part::Docker {
        return daemon_json::without(text, before).map_err(|err| InstallError::syntax(path, err));
    }
    match block::without(text) {
        Ok(rest) => Ok(rest.unwrap_or_else(|| text.to_owned())),
        Err(unended) => Err(InstallError::Unended {
            path: path.to_owned(),
            line: unended.line,
        }),
    }
}

/// Whether nobody would miss what is left of a file that we have made.
fn is_nothing(text: &str) -> bool {
    ["", "{}", BASE_TEMPLATE].contains(&text.trim())
}

/// Runs a program to its end: its standard output, or what it complains about.
pub(super) fn run(program: &Path, args: &[&str]) -> std::result::Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|err| crate::kernel::reason(&err))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Err(last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned()))
}

/// The release of a program; `None` if it does not run here or does not say.
pub(super) fn release(program: &Path) -> Option<Release> {
    Release::parse(&run(program, &["--version"]).ok()?)
}

/// A check of what was written.
#[derive(Debug, Clone)]
pub(super) struct Check {
    /// The engine's program.
    pub(super) program: PathBuf,
    /// Its configuration file, here.
    pub(super) config: PathBuf,
    /// What it has to say to the file.
    pub(super) kind: CheckKind,
}

/// What an engine has to say to its configuration.
#[derive(Debug, Clone)]
pub(super) enum CheckKind {
    /// containerd shows all these runtime classes.
    Shows(Vec<String>),
    /// dockerd finds it valid.
    IsValid,
}

impl Check {
    /// The same of another file.
    pub(super) fn with_config(&self, config: &Path) -> Self {
        Self {
            config: config.to_owned(),
            ..self.clone()
        }
    }

    /// # Errors
    /// What the engine says against it.
    pub(super) fn run(&self) -> std::result::Result<(), String> {
        let config = self.config.to_string_lossy();
        match &self.kind {
            CheckKind::IsValid => {
                let args = ["--validate", "--config-file", &config];
                run(&self.program, &args).map(|_| ())
            }
            CheckKind::Shows(classes) => {
                let dump = run(&self.program, &["--config", &config, "config", "dump"])?;
                let facts = super::cri::facts(&dump).map_err(|Mistake { text, .. }| text)?;
                let mut missing = classes
                    .iter()
                    .filter(|class| !facts.classes.contains(class));
                match missing.next() {
                    None => Ok(()),
                    Some(class) => Err(format!(
                        "`config dump` does not show the runtime class {class}; has the file an old version, or does an imported file replace the tables?"
                    )),
                }
            }
        }
    }
}
