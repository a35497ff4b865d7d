//! Docker: which runtimes of ours it knows.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{option, processes_of, seen_from_here};
use crate::kernel::{process, reason};
use crate::policy::health::{Docker, DockerRuntime};

const DEFAULT_CONFIG: &str = "/etc/docker/daemon.json";
/// What the name of our executable begins with, under every name; and the type of our shim has it.
const OURS: &str = "elastic-mem";

/// None without a daemon and without its configuration.
pub(super) fn gather(pids: &[i32]) -> Option<Docker> {
    let pid = processes_of(pids, "dockerd").map(|(pid, _)| pid).next();
    let words = pid.and_then(|pid| process::command_line(pid).ok());
    let words = words.unwrap_or_default();
    let file = option(&words, &["config-file"]).unwrap_or_else(|| DEFAULT_CONFIG.to_owned());
    let here = |path: &Path| match pid {
        Some(pid) => seen_from_here(pid, path),
        None => path.to_path_buf(),
    };
    let read = std::fs::read(here(Path::new(&file)));
    let is_missing = matches!(&read, Err(err) if err.kind() == std::io::ErrorKind::NotFound);
    if pid.is_none() && is_missing {
        return None;
    }
    let parsed = match read {
        Ok(bytes) => serde_json::from_slice::<Value>(&bytes).map_err(|err| err.to_string()),
        Err(_) if is_missing => Ok(Value::Null),
        Err(err) => Err(reason(&err)),
    };
    let mut docker = Docker {
        pid,
        file,
        problem: None,
        runtimes: Vec::new(),
    };
    let mut named = Vec::new();
    match parsed {
        Ok(config) => named.extend(of_file(&config)),
        Err(problem) => docker.problem = Some(problem),
    }
    named.extend(of_arguments(&words));
    let path = pid.and_then(|pid| process::variable(pid, "PATH").ok().flatten());
    docker.runtimes = named
        .into_iter()
        .filter(|(_, target)| target.contains(OURS))
        .map(|(name, target)| DockerRuntime {
            problem: problem(&target, path.as_deref(), here),
            name,
            target,
        })
        .collect();
    Some(docker)
}

/// Name and path or type of each runtime.
fn of_file(config: &Value) -> Vec<(String, String)> {
    let runtimes = config.get("runtimes").and_then(Value::as_object);
    let each = runtimes
        .into_iter()
        .flatten()
        .filter_map(|(name, runtime)| {
            let text = |key: &str| runtime.get(key).and_then(Value::as_str);
            let target = text("path").or_else(|| text("runtimeType"))?;
            Some((name.clone(), target.to_owned()))
        });
    each.collect()
}

/// `--add-runtime NAME=PATH`.
fn of_arguments(words: &[String]) -> Vec<(String, String)> {
    let after = words.iter().zip(words.iter().skip(1));
    let apart =
        after.filter_map(|(flag, value)| (flag == "--add-runtime").then_some(value.as_str()));
    let joined = words
        .iter()
        .filter_map(|word| word.strip_prefix("--add-runtime="));
    apart
        .chain(joined)
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, path)| (name.to_owned(), path.to_owned()))
        .collect()
}

fn problem(target: &str, path: Option<&str>, here: impl Fn(&Path) -> PathBuf) -> Option<String> {
    // The type of a shim, which its containerd looks for.
    if target.starts_with("io.containerd.") {
        return None;
    }
    let is_there = |file: &Path| {
        let file = here(file);
        file.is_file() && process::check_may_execute(&file).is_ok()
    };
    if target.contains('/') {
        return (!is_there(Path::new(target))).then(|| format!("no executable {target}"));
    }
    let path = path?;
    let found = std::env::split_paths(path).any(|folder| is_there(&folder.join(target)));
    (!found).then(|| format!("no executable {target} in {path}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_routes_and_arguments_are_found() {
        let config = json!({"runtimes": {
            "a": {"path": "/usr/bin/elastic-mem"},
            "b": {"runtimeType": "io.containerd.elastic-mem.v1"},
            "c": {"options": {}},
        }});
        let pairs = of_file(&config);
        let names: Vec<_> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let words = ["dockerd", "--add-runtime", "x=/p", "--add-runtime=y=/q"].map(str::to_owned);
        let pairs = of_arguments(&words);
        assert_eq!(pairs.len(), 2);
        assert!(of_file(&json!([])).is_empty());
    }

    #[test]
    fn a_path_that_leads_nowhere_is_a_problem() {
        let here = |path: &Path| path.to_path_buf();
        assert_eq!(problem("io.containerd.elastic-mem.v1", None, here), None);
        assert!(problem("/no/elastic-mem", None, here).is_some());
        assert!(problem("elastic-mem-none", Some("/bin"), here).is_some());
        assert_eq!(problem("sh", Some("/none:/bin"), here), None);
    }
}
