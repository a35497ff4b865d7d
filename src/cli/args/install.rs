//! Options of `install` and `uninstall`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use crate::install::{self, Engine, Host};

const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
const DOCKER_CONFIG: &str = "/etc/docker/daemon.json";

/// What can be told of us: an engine, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Target {
    /// The runtime class of containerd's CRI plugin
    Containerd,
    /// The runtimes of Docker
    Docker,
    /// The shim of faasd's containerd
    Faasd,
    /// The runtime class of k3s
    K3s,
    /// The runtime class of rke2
    Rke2,
    /// No engine: the program alone
    None,
}

impl Target {
    fn engine(self) -> Option<Engine> {
        match self {
            Self::Containerd => Some(Engine::Containerd),
            Self::Docker => Some(Engine::Docker),
            Self::Faasd => Some(Engine::Faasd),
            Self::K3s => Some(Engine::K3s),
            Self::Rke2 => Some(Engine::Rke2),
            Self::None => None,
        }
    }
}

/// The engines of some targets; `None` if none was named, which stands for all.
fn engines(targets: &[Target]) -> Result<Option<Vec<Engine>>, String> {
    let engines: Vec<_> = targets
        .iter()
        .filter_map(|target| target.engine())
        .collect();
    match (targets.contains(&Target::None), engines.is_empty()) {
        (true, false) => Err("none stands for no engine: name it alone".to_owned()),
        (true, true) => Ok(Some(engines)),
        (false, is_empty) => Ok((!is_empty).then_some(engines)),
    }
}

/// Where things are.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Places {
    /// Folder that stands for the root of the host, for packages and images
    #[arg(long, value_name = "DIR")]
    destdir: Option<PathBuf>,
    /// Folder above elastic-mem/ with the configuration and the record of what was installed
    #[arg(long, value_name = "DIR", default_value = "/etc", value_parser = absolute)]
    sysconfdir: PathBuf,
}

impl Places {
    /// The host with these places, and the usual ones of engines.
    fn host(&self) -> Host {
        let destdir = self.destdir.as_ref();
        Host {
            destdir: destdir.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            prefix: PathBuf::new(),
            sysconfdir: self.sysconfdir.clone(),
            containerd_config: PathBuf::from(CONTAINERD_CONFIG),
            docker_config: PathBuf::from(DOCKER_CONFIG),
        }
    }
}

/// A path that services can find whatever folder they run in.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() {
        true => Ok(path),
        false => Err("the path must be absolute".to_owned()),
    }
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Install {
    /// Engines to tell of elastic-mem; all that are found if none is named
    #[arg(value_name = "ENGINE", value_enum)]
    targets: Vec<Target>,
    /// Folder above bin/ and share/; by default that of the installation that is there, else /usr/local
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    prefix: Option<PathBuf>,
    /// Let Docker use it for containers that name no runtime
    #[arg(long)]
    pub(in crate::cli) default: bool,
    #[command(flatten)]
    places: Places,
    /// Configuration file of containerd
    #[arg(long, value_name = "FILE", default_value = CONTAINERD_CONFIG, value_parser = absolute)]
    containerd_config: PathBuf,
    /// Configuration file of Docker
    #[arg(long, value_name = "FILE", default_value = DOCKER_CONFIG, value_parser = absolute)]
    docker_config: PathBuf,
    /// Show what would be changed, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Have the engines read their configuration, which restarts containerd
    #[arg(long, conflicts_with = "destdir")]
    pub(in crate::cli) restart: bool,
}

impl Install {
    pub(in crate::cli) fn host(&self) -> install::Result<Host> {
        let mut host = self.places.host();
        host.containerd_config.clone_from(&self.containerd_config);
        host.docker_config.clone_from(&self.docker_config);
        host.prefix = match &self.prefix {
            Some(prefix) => prefix.clone(),
            None => host.usual_prefix()?,
        };
        Ok(host)
    }

    pub(in crate::cli) fn engines(&self) -> Result<Option<Vec<Engine>>, String> {
        engines(&self.targets)
    }
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Uninstall {
    /// Engines that are to forget elastic-mem; if none is named, all do, and the program is removed
    #[arg(value_name = "ENGINE", value_enum)]
    targets: Vec<Target>,
    #[command(flatten)]
    places: Places,
    /// Also while containers of elastic-mem are there
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Show what would be changed, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Have the engines read their configuration, which restarts containerd
    #[arg(long, conflicts_with = "destdir")]
    pub(in crate::cli) restart: bool,
}

impl Uninstall {
    pub(in crate::cli) fn host(&self) -> Host {
        self.places.host()
    }

    pub(in crate::cli) fn engines(&self) -> Result<Option<Vec<Engine>>, String> {
        match engines(&self.targets)? {
            Some(engines) if engines.is_empty() => {
                Err("to take out the program too, name no engine".to_owned())
            }
            engines => Ok(engines),
        }
    }
}
