//! containerd and Docker: whether they find us, and whether they are told to use us.

use super::Finding;
use super::host::version;

/// How containerd names our shim.
const RUNTIME: &str = "io.containerd.elastic-mem.v1";
/// The file that it looks for by that name.
const SHIM: &str = "containerd-shim-elastic-mem-v1";
/// The oldest one that is tested.
const OLDEST: (u32, u32) = (1, 6);
/// An annotation as users write it, and what containerd must be told to pass it on.
const ANNOTATIONS: &str = "elastic-mem.io/*";
/// Sections of containerd's CRI plugin: up to file version 2, and from 3 on.
const OLD_PLUGIN: &str = "io.containerd.grpc.v1.cri";
const NEW_PLUGIN: &str = "io.containerd.cri.v1.runtime";

/// A shim of ours that a containerd would start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shim {
    /// Where it lies.
    pub path: String,
    /// What it says it is; none if it does not answer.
    pub version: Option<String>,
}

/// A runtime handler of ours in the configuration of containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Its name, which a RuntimeClass names.
    pub name: String,
    /// The file that has it.
    pub file: String,
    /// The plugin whose section has it.
    pub plugin: String,
    /// Whether the file is an import of the main one.
    pub is_imported: bool,
    /// Patterns of annotations that are passed on.
    pub pod_annotations: Vec<String>,
    /// The shim's path, if it is given, and whether an executable is there.
    pub path: Option<(String, bool)>,
}

/// The configuration of one containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerdConfig {
    /// There is no file.
    Missing(String),
    /// What file, and why it cannot be read.
    Unreadable(String, String),
    /// Read.
    Read {
        /// The main file.
        file: String,
        /// Version of the form.
        version: u32,
        /// Handlers of ours.
        handlers: Vec<Handler>,
    },
}

/// A containerd that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// Its process.
    pub pid: i32,
    /// Its executable.
    pub program: String,
    /// Its version; none if it does not answer.
    pub version: Option<String>,
    /// Where it looks for shims, in this order; none if that could not be seen.
    pub search: Option<Vec<String>>,
    /// What it finds there.
    pub shim: Option<Shim>,
    /// The version of this program.
    pub ours: String,
    /// Its configuration.
    pub config: ContainerdConfig,
    /// Whether dockerd started it for itself.
    pub is_of_docker: bool,
}

/// A runtime in the configuration of Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerRuntime {
    /// What `--runtime` names.
    pub name: String,
    /// A path or the type of a shim.
    pub target: String,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// Its process, if it runs.
    pub pid: Option<i32>,
    /// Its configuration.
    pub file: String,
    /// What is wrong with that.
    pub problem: Option<String>,
    /// Runtimes of ours.
    pub runtimes: Vec<DockerRuntime>,
}

pub(super) fn judge(containerds: &[Containerd], docker: Option<&Docker>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if containerds.is_empty() {
        findings.push(
            Finding::note("containerd.process", "no containerd runs")
                .means("only callers of the command line, such as Podman, can use this runtime now")
                .fix("systemctl start containerd"),
        );
    }
    for containerd in containerds {
        let all = [
            process(containerd),
            shim(containerd),
            shim_version(containerd),
        ];
        findings.extend(
            all.into_iter()
                .flatten()
                .chain(config(containerd))
                .map(|finding| match containerds.len() {
                    1 => finding,
                    _ => finding.about(format!("process {}", containerd.pid)),
                }),
        );
    }
    findings.extend(docker.map(self::docker));
    findings
}

fn process(containerd: &Containerd) -> Option<Finding> {
    const ID: &str = "containerd.process";
    let by = match containerd.is_of_docker {
        true => ", started by Docker",
        false => "",
    };
    let of = format!("{} (process {}{by})", containerd.program, containerd.pid);
    let Some(text) = &containerd.version else {
        return Some(
            Finding::warning(ID, format!("{of} does not tell its version"))
                .means("nothing can be said of what it can do"),
        );
    };
    Some(match version(text.trim_start_matches('v')) {
        Some(found) if found < OLDEST => Finding::error(ID, format!("{text}, {of}"))
            .means("shims of its time spoke another protocol: containers do not start")
            .fix("install containerd 1.6 or newer"),
        _ => Finding::ok(ID, format!("{text}, {of}")),
    })
}

fn shim(containerd: &Containerd) -> Option<Finding> {
    const ID: &str = "containerd.shim";
    if let Some(shim) = &containerd.shim {
        return Some(Finding::ok(ID, format!("finds {}", shim.path)));
    }
    let Some(search) = &containerd.search else {
        return Some(Finding::note(ID, "not seen where it looks for shims"));
    };
    let handler_has_path = match &containerd.config {
        ContainerdConfig::Read { handlers, .. } => {
            handlers.iter().any(|handler| handler.path.is_some())
        }
        _ => false,
    };
    let seen = format!("no {SHIM} in {}", search.join(":"));
    let folder = ["/usr/local/bin", "/usr/bin"]
        .into_iter()
        .find(|usual| search.iter().any(|folder| folder == usual));
    let fix = match folder.or_else(|| search.get(1).map(String::as_str)) {
        Some(folder) => format!("ln -s \"$(command -v elastic-mem)\" {folder}/{SHIM}"),
        None => format!("put {SHIM} into a folder of the PATH of containerd, and restart it"),
    };
    Some(if handler_has_path {
        Finding::note(ID, seen)
            .means("only the handlers of its configuration that give a path work")
    } else {
        Finding::error(ID, seen)
            .means(format!(
                "a container of {RUNTIME} fails: binary not installed"
            ))
            .fix(fix)
    })
}

fn shim_version(containerd: &Containerd) -> Option<Finding> {
    const ID: &str = "containerd.shim-version";
    let shim = containerd.shim.as_ref()?;
    Some(match &shim.version {
        Some(version) if *version == containerd.ours => Finding::ok(ID, version.clone()),
        Some(version) => Finding::warning(
            ID,
            format!(
                "{} is {version}, this command {}",
                shim.path, containerd.ours
            ),
        )
        .means("containers run with another version than this command speaks of")
        .fix(format!(
            "ln -sf \"$(command -v elastic-mem)\" {}",
            shim.path
        )),
        None => Finding::error(ID, format!("{} does not tell its version", shim.path))
            .means("containers do not start: it is no shim of ours, or cannot be executed")
            .fix(format!("{} -v", shim.path)),
    })
}

fn config(containerd: &Containerd) -> Vec<Finding> {
    const ID: &str = "containerd.config";
    let no_handler = |finding: Finding| {
        finding
            .means(format!("Kubernetes has no handler for a RuntimeClass; ctr and nerdctl need none (--runtime {RUNTIME})"))
            .fix("elastic-mem install containerd --restart")
    };
    let (file, version, handlers) = match &containerd.config {
        // Docker names runtimes by itself.
        ContainerdConfig::Missing(_) if containerd.is_of_docker => return Vec::new(),
        ContainerdConfig::Missing(file) => {
            return vec![no_handler(Finding::note(ID, format!("there is no {file}")))];
        }
        ContainerdConfig::Unreadable(file, why) => {
            return vec![
                Finding::warning(ID, format!("{file}: {why}"))
                    .means("containerd does not start again with this file")
                    .fix(format!("containerd --config {file} config dump")),
            ];
        }
        ContainerdConfig::Read {
            file,
            version,
            handlers,
        } => (file, *version, handlers),
    };
    if handlers.is_empty() {
        return match containerd.is_of_docker {
            true => Vec::new(),
            false => vec![no_handler(Finding::note(
                ID,
                format!("{file} has no handler of type {RUNTIME}"),
            ))],
        };
    }
    handlers
        .iter()
        .map(|handler| self::handler(ID, containerd, version, handler))
        .collect()
}

fn handler(
    id: &'static str,
    containerd: &Containerd,
    file_version: u32,
    handler: &Handler,
) -> Finding {
    let Handler {
        name, file, plugin, ..
    } = handler;
    let wanted = if file_version >= 3 {
        NEW_PLUGIN
    } else {
        OLD_PLUGIN
    };
    let is_one = containerd.version.as_deref().is_some_and(|text| {
        version(text.trim_start_matches('v')).is_some_and(|(major, _)| major < 2)
    });
    let table = format!("[plugins.\"{plugin}\".containerd.runtimes.{name}]");
    if let Some((path, false)) = &handler.path {
        return Finding::error(
            id,
            format!("{file}: runtime_path of {name} is {path}, and no executable is there"),
        )
        .means("pods of this handler fail")
        .fix(format!("ln -s \"$(command -v elastic-mem)\" {path}"));
    }
    if [OLD_PLUGIN, NEW_PLUGIN].contains(&plugin.as_str()) && plugin != wanted {
        return Finding::warning(
            id,
            format!("{file}: {table} in a file of version {file_version}"),
        )
        .means("containerd does not read this section: there is no such handler")
        .fix(format!(
            "name the plugin \"{wanted}\" there, and restart containerd"
        ));
    }
    if is_one && handler.is_imported {
        return Finding::warning(id, format!("{file}, an imported file, has {table}"))
            .means("containerd 1.x takes the section of an imported file in place of the whole section of the main file: network, registry and the other runtimes are gone")
            .fix("move the table into the main file: elastic-mem install containerd --restart");
    }
    let patterns = &handler.pod_annotations;
    let passes = patterns
        .iter()
        .any(|pattern| pattern.starts_with("elastic-mem.io/") || pattern == "*/*");
    if !passes {
        let seen = match patterns.is_empty() {
            true => format!("{file}: handler {name} has no pod_annotations"),
            false => {
                format!("{file}: pod_annotations of handler {name} pass none of {ANNOTATIONS}")
            }
        };
        return Finding::warning(id, seen)
            .means("what pods say in annotations does not arrive; a * does not match a name with a slash")
            .fix(format!("pod_annotations = [\"{ANNOTATIONS}\"] below {table}, and restart containerd"));
    }
    Finding::ok(id, format!("{file}: handler {name}"))
}

fn docker(docker: &Docker) -> Finding {
    const ID: &str = "docker.runtimes";
    let Docker { file, pid, .. } = docker;
    if let Some(problem) = &docker.problem {
        return Finding::error(ID, format!("{file}: {problem}"))
            .means("Docker does not start with this file")
            .fix(format!("dockerd --validate --config-file {file}"));
    }
    for runtime in &docker.runtimes {
        if let Some(problem) = &runtime.problem {
            return Finding::error(ID, format!("{file}: runtime {}: {problem}", runtime.name))
                .means(format!("docker run --runtime {} fails", runtime.name))
                .fix("elastic-mem install docker --restart");
        }
    }
    if docker.runtimes.is_empty() {
        let seen = match pid {
            Some(pid) => {
                format!("Docker runs (process {pid}), and {file} names no runtime of ours")
            }
            None => format!("{file} names no runtime of ours"),
        };
        return Finding::note(ID, seen)
            .means(format!(
                "Docker 23 and newer can use --runtime {RUNTIME} all the same"
            ))
            .fix("elastic-mem install docker --restart");
    }
    let named = docker
        .runtimes
        .iter()
        .map(|runtime| format!("{} ({})", runtime.name, runtime.target));
    let named: Vec<_> = named.collect();
    Finding::ok(ID, format!("{file}: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bad, containerd, each, healthy, words};
    use super::super::{Facts, Status, judge};
    use super::{Containerd, ContainerdConfig, Docker, Handler};

    /// Changes the one handler.
    fn with_handler(facts: &mut Facts, change: impl FnOnce(&mut Handler)) {
        let ContainerdConfig::Read { handlers, .. } = &mut facts.containerds[0].config else {
            panic!("read");
        };
        change(&mut handlers[0]);
    }

    #[test]
    fn what_containerd_lacks() {
        each(&[
            (
                |f| f.containerds.clear(),
                "containerd.process",
                Status::Note,
                "systemctl",
            ),
            (
                |f| f.containerds[0].version = None,
                "containerd.process",
                Status::Warning,
                "version",
            ),
            (
                |f| f.containerds[0].version = Some("1.4.13".to_owned()),
                "containerd.process",
                Status::Error,
                "1.6",
            ),
            (
                |f| f.containerds[0].shim = None,
                "containerd.shim",
                Status::Error,
                "/usr/local/bin/containerd-shim-elastic-mem-v1",
            ),
            (
                |f| (f.containerds[0].shim, f.containerds[0].search) = (None, None),
                "containerd.shim",
                Status::Note,
                "not seen",
            ),
            (
                |f| {
                    f.containerds[0].shim = None;
                    with_handler(f, |handler| {
                        handler.path = Some(("/opt/shim".to_owned(), true))
                    });
                },
                "containerd.shim",
                Status::Note,
                "give a path",
            ),
            (
                |f| f.containerds[0].ours = "0.2.0".to_owned(),
                "containerd.shim-version",
                Status::Warning,
                "ln -sf",
            ),
            (
                |f| f.containerds[0].shim.as_mut().unwrap().version = None,
                "containerd.shim-version",
                Status::Error,
                "-v",
            ),
        ]);
    }

    #[test]
    fn what_the_configuration_of_containerd_lacks() {
        const ID: &str = "containerd.config";
        each(&[
            (
                |f| f.containerds[0].config = ContainerdConfig::Missing("/c".to_owned()),
                ID,
                Status::Note,
                "there is no /c",
            ),
            (
                |f| {
                    let why = "expected `=`".to_owned();
                    f.containerds[0].config = ContainerdConfig::Unreadable("/c".to_owned(), why);
                },
                ID,
                Status::Warning,
                "expected `=`",
            ),
            (
                |f| {
                    f.containerds[0].config = ContainerdConfig::Read {
                        file: "/c".to_owned(),
                        version: 2,
                        handlers: Vec::new(),
                    };
                },
                ID,
                Status::Note,
                "RuntimeClass",
            ),
            (
                |f| {
                    with_handler(f, |handler| {
                        handler.path = Some(("/opt/shim".to_owned(), false))
                    })
                },
                ID,
                Status::Error,
                "/opt/shim",
            ),
            (
                |f| {
                    with_handler(f, |handler| {
                        handler.plugin = "io.containerd.cri.v1.runtime".to_owned()
                    })
                },
                ID,
                Status::Warning,
                "of version 2",
            ),
            (
                |f| with_handler(f, |handler| handler.is_imported = true),
                ID,
                Status::Warning,
                "in place of the whole section",
            ),
            (
                |f| with_handler(f, |handler| handler.pod_annotations.clear()),
                ID,
                Status::Warning,
                "no pod_annotations",
            ),
            (
                |f| with_handler(f, |handler| handler.pod_annotations = words(&["*"])),
                ID,
                Status::Warning,
                "slash",
            ),
        ]);
        // containerd 2 merges imported files.
        let two = bad(|f| {
            f.containerds[0].version = Some("v2.1.9".to_owned());
            with_handler(f, |handler| handler.is_imported = true);
        });
        assert_eq!(two, []);
    }

    #[test]
    fn several_containerds_are_told_apart_and_that_of_docker_needs_no_handler() {
        let mut facts = healthy();
        facts.containerds.push(Containerd {
            pid: 7,
            is_of_docker: true,
            config: ContainerdConfig::Missing("/c".to_owned()),
            shim: None,
            ..containerd()
        });
        let mut findings = judge(&facts);
        findings.retain(|finding| finding.status != Status::Ok);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!(findings[0].id, "containerd.shim");
        assert_eq!(findings[0].about.as_deref(), Some("process 7"));
    }

    #[test]
    fn what_docker_lacks() {
        const ID: &str = "docker.runtimes";
        fn docker(facts: &mut Facts) -> &mut Docker {
            facts.docker.as_mut().unwrap()
        }
        each(&[
            (
                |f| docker(f).problem = Some("expected value at line 1".to_owned()),
                ID,
                Status::Error,
                "--validate",
            ),
            (
                |f| docker(f).runtimes.clear(),
                ID,
                Status::Note,
                "names no runtime",
            ),
            (
                |f| docker(f).runtimes[0].problem = Some("no executable /x".to_owned()),
                ID,
                Status::Error,
                "no executable /x",
            ),
        ]);
        assert_eq!(bad(|f| f.docker = None), []);
    }
}
