//! What is ours on this host: configuration, records of containers, profiles.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{Config, Mode, Origin, Reading};
use crate::control::{self, Standing};
use crate::guardian;
use crate::kernel::chain;
use crate::policy::health::{
    ConfigFiles, Container, Layout, Own, Owner, Problem, Profiles, StateFolder,
};
use crate::profile::Store;

/// The facts, and the configuration that is in force.
pub(super) fn gather(config_file: &Path) -> (Own, Config) {
    let Reading {
        config,
        files,
        values,
        errors,
    } = Reading::of(config_file);
    // As everywhere: nothing of it is used.
    let config = match errors.is_empty() {
        true => config,
        false => Config::default(),
    };
    let (readable, unreadable): (Vec<_>, Vec<_>) = control::standing()
        .into_iter()
        .partition(|standing| standing.record.is_some());
    let own = Own {
        config: ConfigFiles {
            main: config_file.display().to_string(),
            files: files.len(),
            values,
            mistakes: errors.iter().map(|err| chain(err)).collect(),
            mode: config.memory_mode.value,
            functions_differ: false,
        },
        state: state(Path::new(control::STATE)),
        containers: readable.iter().filter_map(container).collect(),
        unreadable: unreadable
            .iter()
            .map(|standing| standing.folder.display().to_string())
            .collect(),
        profiles: profiles(&config),
    };
    (own, config)
}

/// On cgroup v1 a mode that grants has to be chosen.
pub(super) fn settle_mode(own: &mut Own, config: &Config, layout: Option<Layout>) {
    let mode = &config.memory_mode;
    if mode.origin == Origin::Default && layout.is_some_and(|layout| layout != Layout::V2) {
        own.config.mode = Mode::Observe;
    }
    let tables = config.table_settings();
    own.config.functions_differ = tables
        .iter()
        .any(|(_, info, value, _)| info.key == "mode" && *value != own.config.mode.as_str());
}

fn state(path: &Path) -> StateFolder {
    let meta = std::fs::metadata(path).ok();
    let is_in_memory = nix::sys::statfs::statfs(path)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC);
    StateFolder {
        path: path.display().to_string(),
        is_there: meta.is_some(),
        is_private: meta.is_none_or(|meta| meta.uid() == 0 && meta.mode() & 0o077 == 0),
        is_in_memory,
    }
}

fn container(standing: &Standing) -> Option<Container> {
    let record = standing.record?;
    let owner = match record.keeper {
        None => Owner::Dead,
        Some(pid) if guardian::of_tuner(pid).is_some() => Owner::Guarded,
        Some(_) => Owner::Unguarded,
    };
    Some(Container {
        name: format!("{}/{}", standing.namespace, standing.id),
        folder: standing.folder.display().to_string(),
        owner,
        is_lowered: record.is_lowered,
        is_stale: record.is_stale,
    })
}

fn profiles(config: &Config) -> Profiles {
    let store = Store::new(&config.profile_folder.value, config.keep_traces.value);
    let folder = store.root().display().to_string();
    let seen = store
        .functions()
        .and_then(|functions| Ok((functions.len(), store.verify(false)?)));
    match seen {
        Ok((functions, found)) => Profiles {
            folder,
            unusable: None,
            functions,
            problems: found
                .findings
                .into_iter()
                .map(|finding| Problem {
                    path: finding.path.display().to_string(),
                    what: finding.problem,
                })
                .collect(),
        },
        Err(err) => Profiles {
            folder,
            unusable: Some(chain(&err)),
            functions: 0,
            problems: Vec::new(),
        },
    }
}
