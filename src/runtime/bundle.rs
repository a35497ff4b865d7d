//! A bundle: `config.json` and the root file system (runtime-spec, "Filesystem Bundle").
//!
//! The configuration is kept as JSON, so that fields unknown to this version pass through to the saved copy
//! and to hooks. For libcontainer a typed copy is made, with the few things changed that it gets wrong
//! ([`Bundle::engine_spec`] lists them).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{Hook, LinuxResources, Spec};
use serde_json::{Value, json};

use super::error::{Result, RuntimeError};
use super::workload::Workload;
use crate::kernel::process;

/// A bundle that was read and found usable.
#[derive(Debug)]
pub(super) struct Bundle {
    /// The folder, absolute.
    pub(super) path: PathBuf,
    /// The root file system, absolute and without links.
    pub(super) rootfs: PathBuf,
    /// The configuration as it was found.
    pub(super) config: Value,
}

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(RuntimeError::InvalidSpec(text.into()))
}

impl Bundle {
    /// Reads a bundle and makes its folder the working directory: relative paths in it start there.
    ///
    /// # Errors
    /// `NoConfig`, `Json`, `InvalidSpec`, `Unsupported`, or `Io` for the root file system.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path =
            fs::canonicalize(path).map_err(|err| RuntimeError::io("open bundle", path, err))?;
        std::env::set_current_dir(&path)
            .map_err(|err| RuntimeError::io("enter bundle", &path, err))?;
        let file = path.join("config.json");
        let bytes = match fs::read(&file) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(RuntimeError::NoConfig(PathBuf::from("config.json")));
            }
            other => other.map_err(|err| RuntimeError::io("read", &file, err))?,
        };
        let config: Value = serde_json::from_slice(&bytes)
            .map_err(|err| RuntimeError::json(file.display().to_string(), err))?;
        check(&config)?;
        let root = config
            .pointer("/root/path")
            .and_then(Value::as_str)
            .map(Path::new);
        let Some(root) = root else {
            return invalid("root must be specified");
        };
        let rootfs = path.join(root);
        let rootfs = fs::canonicalize(&rootfs)
            .map_err(|err| RuntimeError::io("invalid rootfs: stat", &rootfs, err))?;
        if !rootfs.is_dir() {
            return invalid(format!(
                "invalid rootfs: {} is not a directory",
                rootfs.display()
            ));
        }
        Ok(Self {
            path,
            rootfs,
            config,
        })
    }

    /// The typed configuration for libcontainer, with the process given (the bundle's or an exec'ed one).
    ///
    /// Changed against the bundle:
    /// - `noNewPrivileges: false` is left out, because libcontainer takes its mere presence for a reason to
    ///   install the seccomp filter after the capabilities are gone, which then fails;
    /// - capabilities that this kernel does not have are left out with a warning;
    /// - the environment, the startContainer hooks and the working directory are handled by [`Workload`]
    ///   and the launch;
    /// - an empty set of hooks is added, which makes libcontainer wait for us once the mounts are made.
    ///
    /// # Errors
    /// `InvalidSpec` naming the field that has the wrong form.
    pub(super) fn engine_spec(config: &Value, rootfs: &Path) -> Result<Spec> {
        let mut config = config.clone();
        if let Some(root) = config.get_mut("root").and_then(Value::as_object_mut) {
            root.insert("path".to_owned(), json!(rootfs));
        }
        if let Some(process) = config.get_mut("process").and_then(Value::as_object_mut) {
            if process.get("noNewPrivileges") == Some(&Value::Bool(false)) {
                process.remove("noNewPrivileges");
            }
            if let Some(capabilities) = process.get_mut("capabilities") {
                drop_unknown_capabilities(capabilities);
            }
            // libcontainer would look the user up through name service modules, here inside the container.
            process.insert("env".to_owned(), json!(["HOME=/"]));
        }
        if let Some(hooks) = config.get_mut("hooks").and_then(Value::as_object_mut) {
            hooks.remove("startContainer");
        } else if let Some(config) = config.as_object_mut() {
            config.insert("hooks".to_owned(), json!({}));
        }
        typed(config, "config.json")
    }

    /// What to run in the end.
    ///
    /// # Errors
    /// `InvalidSpec` when the process or a hook has the wrong form.
    pub(super) fn workload(config: &Value) -> Result<Workload> {
        let process = config.get("process").unwrap_or(&Value::Null);
        let strings = |key: &str| -> Vec<String> {
            process
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect()
        };
        let label = process
            .get("selinuxLabel")
            .and_then(Value::as_str)
            .filter(|label| !label.is_empty());
        Ok(Workload {
            args: strings("args"),
            env: strings("env"),
            uid: process
                .pointer("/user/uid")
                .and_then(Value::as_u64)
                .and_then(|uid| u32::try_from(uid).ok())
                .unwrap_or(0),
            start_hooks: hooks(config, "startContainer")?,
            hook_state: None,
            selinux_label: label.map(str::to_owned),
        })
    }

    /// The limits of the bundle.
    ///
    /// # Errors
    /// `InvalidSpec` when they have the wrong form.
    pub(super) fn limits(&self) -> Result<LinuxResources> {
        match self.config.pointer("/linux/resources") {
            Some(limits) if !limits.is_null() => typed(limits.clone(), "linux.resources"),
            _ => Ok(LinuxResources::default()),
        }
    }

    /// Annotations of the bundle.
    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        self.config
            .get("annotations")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// `linux.cgroupsPath`, if it is set.
    pub(super) fn cgroups_path(&self) -> Option<&str> {
        self.config
            .pointer("/linux/cgroupsPath")
            .and_then(Value::as_str)
            .filter(|path| !path.is_empty())
    }
}

/// The hooks of one kind.
pub(super) fn hooks(config: &Value, kind: &str) -> Result<Vec<Hook>> {
    match config.get("hooks").and_then(|hooks| hooks.get(kind)) {
        Some(list) if !list.is_null() => typed(list.clone(), &format!("hooks.{kind}")),
        _ => Ok(Vec::new()),
    }
}

/// JSON into a type of the runtime-spec.
pub(super) fn typed<T: serde::de::DeserializeOwned>(value: Value, what: &str) -> Result<T> {
    serde_json::from_value(value).map_err(|err| RuntimeError::json(what, err))
}

/// What every runtime checks before it begins, in the words of runc.
fn check(config: &Value) -> Result<()> {
    let Some(root) = config.as_object() else {
        return invalid("config.json must hold a JSON object");
    };
    let version = root
        .get("ociVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !version.is_empty() && !version.starts_with("1.") {
        return invalid(format!(
            "unsupported ociVersion {version:?}: this runtime knows 1.x"
        ));
    }
    let Some(process) = root.get("process").filter(|value| !value.is_null()) else {
        return invalid("process property must not be empty");
    };
    check_process(process)?;
    let Some(linux) = root.get("linux").filter(|value| !value.is_null()) else {
        return invalid("linux property must not be empty");
    };
    if linux.get("intelRdt").is_some_and(|value| !value.is_null()) {
        return Err(RuntimeError::Unsupported(
            "linux.intelRdt is not supported".to_owned(),
        ));
    }
    let flags = linux
        .pointer("/personality/flags")
        .and_then(Value::as_array);
    if flags.is_some_and(|flags| !flags.is_empty()) {
        return Err(RuntimeError::Unsupported(
            "linux.personality.flags are not supported".to_owned(),
        ));
    }
    for mount in root
        .get("mounts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        check_mount(mount)?;
    }
    Ok(())
}

fn check_mount(mount: &Value) -> Result<()> {
    let mapped = ["uidMappings", "gidMappings"].iter().any(|key| {
        mount
            .get(key)
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
    });
    let option = mount
        .get("options")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|option| matches!(option.as_str(), Some("idmap" | "ridmap")));
    if mapped || option {
        let destination = mount
            .get("destination")
            .and_then(Value::as_str)
            .unwrap_or("?");
        return Err(RuntimeError::Unsupported(format!(
            "mount {destination}: idmapped mounts are not supported"
        )));
    }
    Ok(())
}

/// Checks a process, the bundle's own or one to exec.
pub(super) fn check_process(process: &Value) -> Result<()> {
    let text = |key: &str| process.get(key).and_then(Value::as_str).unwrap_or_default();
    let cwd = text("cwd");
    if cwd.is_empty() {
        return invalid("Cwd property must not be empty");
    }
    if !cwd.starts_with('/') {
        return invalid("Cwd must be an absolute path");
    }
    let args = process.get("args").and_then(Value::as_array);
    if args.is_none_or(Vec::is_empty) {
        return invalid("args must not be empty");
    }
    for key in ["args", "env"] {
        for value in process
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            match value.as_str() {
                None => return invalid(format!("process.{key}: {value} is not a string")),
                Some(text) if text.contains('\0') => {
                    return invalid(format!("process.{key}: {text:?} contains a NUL byte"));
                }
                Some(_) => {}
            }
        }
    }
    if !text("selinuxLabel").is_empty() && !process::selinux_enabled() {
        return invalid(
            "selinux label is specified in config, but selinux is disabled or not supported",
        );
    }
    if !text("apparmorProfile").is_empty() && !process::apparmor_enabled() {
        return invalid(
            "apparmor profile is specified in config, but apparmor is disabled or not supported",
        );
    }
    Ok(())
}

/// Leaves out capabilities that are no names, or that this kernel does not have, as runc does.
pub(super) fn drop_unknown_capabilities(sets: &mut Value) {
    let mut unknown: Vec<String> = Vec::new();
    let supported = caps::runtime::procfs_all_supported(None).unwrap_or_else(|_| caps::all());
    for list in sets
        .as_object_mut()
        .into_iter()
        .flat_map(|sets| sets.values_mut())
    {
        let Some(list) = list.as_array_mut() else {
            continue;
        };
        list.retain(|name| {
            let known = name
                .as_str()
                .and_then(|name| caps::Capability::from_str(name).ok())
                .is_some_and(|capability| supported.contains(&capability));
            if !known && name.is_string() {
                unknown.extend(name.as_str().map(str::to_owned));
            }
            known || !name.is_string()
        });
    }
    if !unknown.is_empty() {
        unknown.sort();
        unknown.dedup();
        tracing::warn!("ignoring unknown or unavailable capabilities: {unknown:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "linux": {}
        })
    }

    #[test]
    fn the_minimal_configuration_is_accepted() {
        check(&minimal()).unwrap();
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (pointer, value, word) in [
            ("/process", Value::Null, "process"),
            ("/linux", Value::Null, "linux"),
            ("/process/cwd", json!(""), "Cwd"),
            ("/process/cwd", json!("tmp"), "absolute"),
            ("/process/args", json!([]), "args"),
            ("/process/args", json!(["a", 1]), "process.args"),
            ("/process/args", json!(["a\u{0}"]), "NUL"),
            ("/ociVersion", json!("2.0.0"), "2.0.0"),
        ] {
            let mut config = minimal();
            *config.pointer_mut(pointer).unwrap() = value;
            let err = check(&config).unwrap_err().to_string();
            assert!(err.contains(word), "{pointer}: {err}");
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let mut config = minimal();
        config["mounts"] = json!([{"destination": "/m", "options": ["bind", "idmap"]}]);
        assert!(matches!(check(&config), Err(RuntimeError::Unsupported(_))));
        let mut config = minimal();
        config["linux"]["personality"] = json!({"domain": "LINUX", "flags": ["X"]});
        assert!(matches!(check(&config), Err(RuntimeError::Unsupported(_))));
    }

    #[test]
    fn unknown_fields_stay_in_the_configuration_and_out_of_the_way() {
        let mut config = minimal();
        config["futureField"] = json!({"a": 1});
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_FUTURE"]});
        let spec = Bundle::engine_spec(&config, Path::new("/r")).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.no_new_privileges(), None);
        let bounding = process.capabilities().as_ref().unwrap().bounding().clone();
        assert_eq!(bounding.unwrap().len(), 1);
        assert_eq!(config["futureField"]["a"], 1);
    }
}
