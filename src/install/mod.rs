//! Puts this program onto a host and tells the container engines of it, and takes both out again.
//!
//! What is to be written is planned first: texts from texts (`block`, `cri`, `daemon_json`, `unit`), by engine
//! (`containerd`, `docker`, `faasd`, `rancher`). Then it is recorded (`record`), written by rename (`files`), and the
//! engine is asked whether it accepts it; if not, everything is put back. So a second run finds nothing to do, a run
//! that was killed is completed by the next, and taking out gives the files of before.

mod block;
mod containerd;
mod cri;
mod daemon_json;
mod docker;
mod error;
mod faasd;
mod files;
mod host;
mod rancher;
mod record;
mod uninstall;
mod unit;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::{InstallError, Result};
pub use host::Host;
use host::{Check, SHIM};
use record::{Entry, Record};
pub use uninstall::{Removal, uninstall};

/// Our configuration as it is at first, every option commented out.
const CONFIG: &str = include_str!("../../config/elastic-mem.toml");
/// The runtime class as an example, with every line explained.
const CONTAINERD_EXAMPLE: &str = include_str!("../../config/containerd.toml");
/// Where the programs are put if nobody says where.
const PREFIX: &str = "/usr/local";
/// Prefixes in whose `bin` every service finds programs.
const USUAL_PREFIXES: [&str; 2] = ["/usr", "/usr/local"];

/// An engine that can be told of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// containerd and its CRI plugin.
    Containerd,
    /// Docker.
    Docker,
    /// faasd, by way of its containerd.
    Faasd,
    /// k3s with its own containerd.
    K3s,
    /// rke2 with its own containerd.
    Rke2,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Containerd,
        Self::Docker,
        Self::Faasd,
        Self::K3s,
        Self::Rke2,
    ];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::Faasd => "faasd",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// Where it is looked for.
    fn signs(self) -> &'static str {
        match self {
            Self::Containerd => "neither a program containerd nor its configuration file is there",
            Self::Docker => "neither a program dockerd nor its configuration file is there",
            Self::Faasd => "no program faasd is there",
            Self::K3s => "neither a program k3s nor /var/lib/rancher/k3s is there",
            Self::Rke2 => "neither a program rke2 nor /var/lib/rancher/rke2 is there",
        }
    }

    fn part(self) -> Part {
        match self {
            Self::Containerd => Part::Containerd,
            Self::Docker => Part::Docker,
            Self::Faasd => Part::Faasd,
            Self::K3s => Part::K3s,
            Self::Rke2 => Part::Rke2,
        }
    }
}

/// What a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// The program itself.
    Own,
    Containerd,
    Docker,
    Faasd,
    K3s,
    Rke2,
}

/// A file of the program beside its executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// Where, from the prefix.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// What is to be installed.
#[derive(Debug)]
pub struct Installation {
    /// Where.
    pub host: Host,
    /// The engines that were named; all that are found if `None`.
    pub engines: Option<Vec<Engine>>,
    /// Completions and man pages.
    pub own_files: Vec<OwnFile>,
    /// Whether Docker uses us for containers that name no runtime.
    pub is_default: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was done with a file, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It was not there.
    Made,
    /// It was there and is another one now.
    Changed,
    /// It is as it was before the installation.
    Restored,
    /// Our part was taken out; somebody has changed the rest meanwhile.
    TakenOut,
    /// It is gone.
    Removed,
    /// It stays, as it is somebody else's by now.
    Kept,
}

/// A file and what was done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The file.
    pub path: PathBuf,
    /// What was done.
    pub action: Action,
    /// The text before and after, if it is a configuration that people read.
    pub texts: Option<(String, String)>,
    /// Where the earlier text is kept.
    pub backup: Option<PathBuf>,
}

/// What was done, or would be.
#[derive(Debug, Default)]
pub struct Report {
    /// Files, in the order in which they were written. Those that are as they should be are not among them.
    pub done: Vec<Done>,
    /// What else there is to know.
    pub notes: Vec<String>,
    /// Commands after which engines know of it.
    pub restart: Vec<Vec<&'static str>>,
    /// What failed. The rest was done all the same.
    pub failures: Vec<InstallError>,
}

/// What a file is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Text(String),
    /// The running program.
    Program,
    Link(PathBuf),
}

/// A file as it is to be.
#[derive(Debug)]
struct Wanted {
    part: Part,
    path: PathBuf,
    content: Content,
    /// The text without us, of a file that others write too.
    base: Option<String>,
}

/// What is to be done for one engine.
#[derive(Debug, Default)]
struct EnginePlan {
    wanted: Vec<Wanted>,
    notes: Vec<String>,
    check: Option<Check>,
}

impl Report {
    /// Notes what makes an engine read its configuration again.
    fn restart(&mut self, host: &Host, part: Part) {
        // Below a folder nothing runs.
        if host.destdir.is_some() {
            return;
        }
        let restart = |service| vec!["systemctl", "restart", service];
        let commands = match part {
            Part::Own => Vec::new(),
            Part::Containerd => vec![restart("containerd")],
            // Runtimes and the default one are read again at a reload, and containers go on.
            Part::Docker => vec![vec!["systemctl", "reload", "docker"]],
            Part::Faasd => vec![vec!["systemctl", "daemon-reload"], restart("containerd")],
            Part::K3s => vec![restart(rancher::service(host, "k3s", "k3s-agent"))],
            Part::Rke2 => vec![restart(rancher::service(host, "rke2-server", "rke2-agent"))],
        };
        for command in commands {
            // Once is enough, after everything that is read then.
            self.restart.retain(|one| *one != command);
            self.restart.push(command);
        }
    }
}

impl Host {
    /// The prefix of what is installed already, or else of the place from which this program runs.
    ///
    /// # Errors
    /// The record cannot be used.
    pub fn usual_prefix(&self) -> Result<PathBuf> {
        if let Some(record) = Record::read(&self.record_file())? {
            return Ok(record.prefix);
        }
        let packaged = match self.destdir {
            Some(_) => None,
            None => packaged_prefix(),
        };
        Ok(packaged.unwrap_or_else(|| PathBuf::from(PREFIX)))
    }
}

/// The prefix below which a package has put this program, if it runs from there.
fn packaged_prefix() -> Option<PathBuf> {
    let own = fs::canonicalize(crate::kernel::exe::SELF).ok()?;
    let is_own = |path: &Path| fs::canonicalize(path).is_ok_and(|found| found == own);
    let mut prefixes = USUAL_PREFIXES.iter().map(PathBuf::from);
    prefixes.find(|prefix| is_own(&prefix.join("bin").join(SHIM)))
}

/// Installs.
///
/// # Errors
/// When nothing could be done. What fails for one engine is in the report.
pub fn install(job: &Installation) -> Result<Report> {
    let host = &job.host;
    if host.destdir.is_none() && !job.dry_run && !nix::unistd::geteuid().is_root() {
        return Err(InstallError::NotRoot(host.prefix.clone()));
    }
    let lock_folder = host.here(&host.folder());
    let folders = files::missing_folders(&host.record_file());
    let _lock = match job.dry_run {
        true => None,
        false => Some(files::Lock::take(&lock_folder)?),
    };
    let earlier = Record::read(&host.record_file())?;
    if let Some(earlier) = &earlier
        && earlier.prefix != host.prefix
    {
        return Err(InstallError::OtherPrefix(earlier.prefix.clone()));
    }
    // What a package or a packager puts somewhere, the package manager keeps the list of.
    let is_staged = host.destdir.is_some() && job.engines.as_ref().is_some_and(Vec::is_empty);
    let mut record = earlier.unwrap_or_else(|| Record::new(host.prefix.clone()));
    if !job.dry_run {
        record.take_back_begun(host)?;
    }
    let is_packaged = host.destdir.is_none()
        && record.entry(&host.command()).is_none()
        && packaged_prefix().as_ref() == Some(&host.prefix);
    let mut run = Run {
        host,
        record,
        keeps_record: !is_staged,
        dry_run: job.dry_run,
        report: Report::default(),
    };
    run.note_folders(folders);
    // A name that is wrong is found before anything is written.
    let mut plans = Vec::new();
    for engine in Engine::ALL {
        let is_named = job
            .engines
            .as_ref()
            .map(|engines| engines.contains(&engine));
        if is_named == Some(false) {
            continue;
        }
        match run.plan(engine, is_named.is_some(), job.is_default) {
            Ok(Some(plan)) => plans.push((engine, plan)),
            Ok(None) => {}
            Err(err @ InstallError::NoEngine { .. }) => return Err(err),
            Err(err) => run.report.failures.push(err),
        }
    }
    run.own(&job.own_files, is_packaged)?;
    for (engine, plan) in plans {
        if let Err(err) = run.engine(engine, plan) {
            run.report.failures.push(err);
        }
    }
    Ok(run.report)
}

/// An installation under way.
struct Run<'a> {
    host: &'a Host,
    record: Record,
    keeps_record: bool,
    dry_run: bool,
    report: Report,
}

impl Run<'_> {
    /// The program, its documents and its configuration.
    fn own(&mut self, own_files: &[OwnFile], is_packaged: bool) -> Result<()> {
        let mut wanted = Vec::new();
        let mut want = |path: PathBuf, content: Content| {
            wanted.push(Wanted {
                part: Part::Own,
                path,
                content,
                base: None,
            });
        };
        if !is_packaged {
            let share = self.host.prefix.join("share/doc/elastic-mem");
            want(self.host.command(), Content::Program);
            // It also leads to the program when the tree is moved to its place later.
            want(
                self.host.shim(),
                Content::Link(PathBuf::from(host::COMMAND)),
            );
            for file in own_files {
                want(
                    self.host.prefix.join(&file.path),
                    Content::Text(file.text.clone()),
                );
            }
            // Examples, where nothing reads them.
            want(
                share.join("elastic-mem.toml"),
                Content::Text(CONFIG.to_owned()),
            );
            want(
                share.join("containerd.toml"),
                Content::Text(CONTAINERD_EXAMPLE.to_owned()),
            );
        }
        // What the operator has made of it stays.
        let config = self.host.config();
        if !self.host.here(&config).exists() {
            want(config, Content::Text(CONFIG.to_owned()));
        }
        self.write(&wanted)
    }

    /// What is to be done for an engine; nothing if it is not there and was not named.
    fn plan(&self, engine: Engine, is_named: bool, is_default: bool) -> Result<Option<EnginePlan>> {
        let (host, record) = (self.host, &self.record);
        let plan = match engine {
            Engine::Containerd => containerd::plan(host, record)?,
            Engine::Docker => docker::plan(host, record, is_default)?,
            Engine::Faasd => faasd::plan(host, record, is_named)?,
            Engine::K3s | Engine::Rke2 => rancher::plan(host, record, engine)?,
        };
        match plan {
            None if is_named => Err(InstallError::NoEngine {
                engine: engine.name(),
                looked: engine.signs(),
            }),
            plan => Ok(plan),
        }
    }

    fn engine(&mut self, engine: Engine, plan: EnginePlan) -> Result<()> {
        self.report.notes.extend(plan.notes);
        let before = self.report.done.len();
        self.write(&plan.wanted)?;
        // Also when nothing has changed: a run that was killed has not asked.
        if let Some(check) = plan.check.filter(|_| !self.dry_run)
            && let Err(answer) = check.run()
        {
            self.report.done.truncate(before);
            self.put_back(&plan.wanted)?;
            return Err(InstallError::Refused {
                program: check.program.display().to_string(),
                path: check.config,
                answer,
            });
        }
        if self.report.done.len() > before {
            self.report.restart(self.host, engine.part());
        }
        Ok(())
    }

    /// Writes what is not as it is to be.
    fn write(&mut self, all: &[Wanted]) -> Result<()> {
        let mut changes = Vec::new();
        for wanted in all {
            let here = self.host.here(&wanted.path);
            if !self.dry_run {
                files::sweep(&here);
            }
            if let Some(done) = self.change(wanted, &here)? {
                changes.push((wanted, here, done));
            }
        }
        if changes.is_empty()
            && all
                .iter()
                .all(|wanted| self.record.entry(&wanted.path).is_some())
        {
            return Ok(());
        }
        self.keep_earlier(all)?;
        for wanted in all {
            let folders = files::missing_folders(&self.host.here(&wanted.path));
            self.note_folders(folders);
            let sha256 = match &wanted.content {
                Content::Text(text) => Some(files::digest(text.as_bytes())),
                Content::Program | Content::Link(_) => None,
            };
            self.record.put(Entry {
                part: wanted.part,
                path: wanted.path.clone(),
                sha256,
                backup: wanted.base.is_some().then(|| files::backup(&wanted.path)),
            });
        }
        if !self.dry_run {
            self.write_record()?;
        }
        for (wanted, here, done) in changes {
            if !self.dry_run {
                put(&wanted.content, &here)?;
            }
            self.report.done.push(done);
        }
        Ok(())
    }

    /// Keeps the content of files as it was without us, before they are changed. What is begun is recorded first.
    fn keep_earlier(&mut self, all: &[Wanted]) -> Result<()> {
        let kept: Vec<(&Wanted, &String)> = all
            .iter()
            .filter_map(|wanted| Some((wanted, wanted.base.as_ref()?)))
            .collect();
        if self.dry_run || kept.is_empty() {
            return Ok(());
        }
        let begun = kept.iter().map(|(wanted, _)| files::backup(&wanted.path));
        self.record.begun = begun.collect();
        self.write_record()?;
        for (wanted, base) in kept {
            let here = self.host.here(&wanted.path);
            files::keep(&files::backup(&here), base.as_bytes(), &here)?;
        }
        // With the next record they are those of files that are being changed.
        self.record.begun.clear();
        Ok(())
    }

    /// What is to be done with a file; nothing if it is as it is to be.
    fn change(&self, wanted: &Wanted, here: &Path) -> Result<Option<Done>> {
        let is_there = fs::symlink_metadata(here).is_ok();
        let (is_right, texts) = match &wanted.content {
            Content::Program => (files::is_this_program(here), None),
            Content::Link(target) => (
                fs::read_link(here).is_ok_and(|found| found == *target),
                None,
            ),
            Content::Text(text) => {
                // What was there before us may be anything, where it is replaced as a whole.
                let current = files::read(here)?;
                let current = current.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let is_shown = wanted.part != Part::Own;
                (
                    current.as_ref() == Some(text),
                    is_shown.then(|| (current.unwrap_or_default(), text.clone())),
                )
            }
        };
        Ok((!is_right).then(|| Done {
            path: wanted.path.clone(),
            action: if is_there {
                Action::Changed
            } else {
                Action::Made
            },
            texts,
            backup: wanted.base.is_some().then(|| files::backup(&wanted.path)),
        }))
    }

    /// Puts back what was there without us.
    fn put_back(&mut self, all: &[Wanted]) -> Result<()> {
        for wanted in all {
            let here = self.host.here(&wanted.path);
            match &wanted.base {
                Some(base) => files::write(&here, base.as_bytes())?,
                None => files::remove(&here)?,
            }
            files::remove(&files::backup(&here))?;
            self.record.forget(&wanted.path);
        }
        self.write_record()
    }

    fn note_folders(&mut self, folders: Vec<PathBuf>) {
        let root = self.host.destdir.clone().unwrap_or_default();
        for folder in folders {
            // Those of the folder that stands for the root are its owner's.
            let folder = match self.host.destdir {
                Some(_) => match folder.strip_prefix(&root) {
                    Ok(inside) if !inside.as_os_str().is_empty() => Path::new("/").join(inside),
                    _ => continue,
                },
                None => folder,
            };
            if !self.record.folders.contains(&folder) {
                self.record.folders.push(folder);
            }
        }
    }

    fn write_record(&self) -> Result<()> {
        match self.keeps_record {
            true => self.record.write(&self.host.record_file()),
            false => Ok(()),
        }
    }
}

fn put(content: &Content, here: &Path) -> Result<()> {
    if let Some(folder) = here.parent() {
        fs::create_dir_all(folder).map_err(InstallError::io("create", folder))?;
    }
    match content {
        Content::Text(text) => files::write(here, text.as_bytes()),
        Content::Program => files::write_program(here),
        Content::Link(target) => files::link(here, target),
    }
}

/// Runs commands of the host, one after the other.
///
/// # Errors
/// The first one that fails.
pub fn restart(commands: &[Vec<&'static str>]) -> Result<()> {
    for words in commands {
        let Some((program, args)) = words.split_first() else {
            continue;
        };
        host::run(Path::new(program), args).map_err(|answer| InstallError::Command {
            command: words.join(" "),
            answer,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
