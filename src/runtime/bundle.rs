//! A bundle: `config.json` and the root file system (runtime-spec, "Filesystem Bundle").
//!
//! The configuration is kept as JSON, so that fields unknown to this version pass through to the saved copy
//! and to hooks. For libcontainer a typed copy is made, with the few things changed that it gets wrong
//! ([`Bundle::engine_spec`] lists them).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use caps::Capability;
use oci_spec::runtime::{
    Capabilities, LinuxCapabilities, LinuxDevice, LinuxResources, Process, Spec,
};
use serde_json::{Value, json};

use super::error::{Result, RuntimeError};
use super::hooks;
use super::json::typed;
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
    /// Everything that [`Workload`], the hooks or the control groups take care of is left out: libcontainer
    /// then prepares the container as root and hands over. An empty set of hooks makes it wait for us once
    /// the mounts are made.
    ///
    /// # Errors
    /// `Json` naming the field that has the wrong form.
    pub(super) fn engine_spec(config: &Value, rootfs: &Path, mounts: Vec<Value>) -> Result<Spec> {
        // Only what libcontainer needs, so that neither side has to be changed for a new field.
        let mut spec = serde_json::Map::new();
        for key in [
            "ociVersion",
            "root",
            "hostname",
            "domainname",
            "annotations",
        ] {
            if let Some(value) = config.get(key) {
                spec.insert(key.to_owned(), value.clone());
            }
        }
        spec.entry("ociVersion")
            .or_insert_with(|| json!(super::OCI_VERSION));
        if let Some(root) = spec.get_mut("root").and_then(Value::as_object_mut) {
            root.insert("path".to_owned(), json!(rootfs));
        }
        spec.insert("mounts".to_owned(), Value::Array(mounts));
        let mut process = object(config.get("process"), "process")?;
        // Ours: see the module `workload`.
        for key in ["capabilities", "env", "selinuxLabel"] {
            process.remove(key);
        }
        if process.get("noNewPrivileges") == Some(&Value::Bool(false)) {
            // Its mere presence means something to libcontainer.
            process.remove("noNewPrivileges");
        }
        process.insert("cwd".to_owned(), json!("/"));
        process.insert("user".to_owned(), json!({"uid": 0, "gid": 0}));
        // Without HOME libcontainer would ask name service modules, here those of the container.
        process.insert("env".to_owned(), json!(["HOME=/"]));
        spec.insert("process".to_owned(), Value::Object(process));
        let mut linux = object(config.get("linux"), "linux")?;
        for key in ["seccomp", "readonlyPaths", "maskedPaths", "resources"] {
            linux.remove(key);
        }
        let has_user_namespace = has_namespace(config.get("linux").unwrap_or(&Value::Null), "user");
        if !has_user_namespace {
            // Without effect, and refused by libcontainer.
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        }
        if let Some(devices) = linux.get_mut("devices").and_then(Value::as_array_mut) {
            // The others are made at creation.
            devices.retain(|device| has_user_namespace || in_dev(device));
        }
        if let Some(Value::String(propagation)) = linux.get_mut("rootfsPropagation") {
            // libcontainer always includes the mounts below and knows the short names only.
            if let Some(short) = propagation.strip_prefix('r') {
                *propagation = short.to_owned();
            }
        }
        spec.insert("linux".to_owned(), Value::Object(linux));
        let create_container = config.pointer("/hooks/createContainer").cloned();
        let hooks =
            create_container.map_or_else(|| json!({}), |list| json!({"createContainer": list}));
        spec.insert("hooks".to_owned(), hooks);
        typed(Value::Object(spec), "config.json")
    }

    /// What to run in the end, and as whom.
    ///
    /// # Errors
    /// `Json` when the process, the filter or a hook has the wrong form.
    pub(super) fn workload(config: &Value) -> Result<Workload> {
        let mut fields = object(config.get("process"), "process")?;
        if let Some(capabilities) = fields.get_mut("capabilities") {
            drop_unknown_capabilities(capabilities);
        }
        let text = |key: &str| {
            let text = fields.get(key).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let selinux_label = text("selinuxLabel");
        let mut process: Process = typed(Value::Object(fields), "process")?;
        let capabilities = capability_sets(process.capabilities().as_ref());
        let linux = config.get("linux").unwrap_or(&Value::Null);
        let part = |key: &str| linux.get(key).filter(|value| !value.is_null()).cloned();
        let seccomp = part("seccomp")
            .map(|value| typed(value, "linux.seccomp"))
            .transpose()?;
        let paths = |key: &str| -> Result<Vec<String>> {
            part(key).map_or_else(
                || Ok(Vec::new()),
                |value| typed(value, &format!("linux.{key}")),
            )
        };
        let (readonly_paths, masked_paths) = (paths("readonlyPaths")?, paths("maskedPaths")?);
        let user = process.user();
        Ok(Workload {
            args: process.args().clone().unwrap_or_default(),
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            env: process.env_mut().take().unwrap_or_default(),
            capabilities,
            seccomp,
            seccomp_agent: None,
            selinux_label,
            readonly_paths,
            masked_paths,
            propagation: Vec::new(),
            new_network: has_new_namespace(linux, "network"),
            dev: None,
            inside: None,
            start_hooks: hooks::of_kind(config, "startContainer")?,
            hook_state: None,
            memory_policy: None,
        })
    }

    /// Device nodes that libcontainer does not make, or not well: it refuses those outside /dev, and makes
    /// folders below it that everybody may write to. In a user namespace only it can make nodes.
    ///
    /// # Errors
    /// `Json` when they have the wrong form.
    pub(super) fn other_devices(&self) -> Result<Vec<LinuxDevice>> {
        if has_namespace(self.config.get("linux").unwrap_or(&Value::Null), "user") {
            return Ok(Vec::new());
        }
        let list = self
            .config
            .pointer("/linux/devices")
            .and_then(Value::as_array);
        let others: Vec<Value> = list
            .into_iter()
            .flatten()
            .filter(|device| !in_dev(device))
            .cloned()
            .collect();
        typed(Value::Array(others), "linux.devices")
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

/// The capability sets of a process; what is not given is empty, never everything.
fn capability_sets(given: Option<&LinuxCapabilities>) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    let part = |part: Option<Capabilities>| Some(part.unwrap_or_default());
    sets.set_bounding(part(given.and_then(|given| given.bounding().clone())));
    sets.set_effective(part(given.and_then(|given| given.effective().clone())));
    sets.set_permitted(part(given.and_then(|given| given.permitted().clone())));
    sets.set_inheritable(part(given.and_then(|given| given.inheritable().clone())));
    sets.set_ambient(part(given.and_then(|given| given.ambient().clone())));
    sets
}

fn in_dev(device: &Value) -> bool {
    device
        .get("path")
        .and_then(Value::as_str)
        .is_none_or(|path| Path::new(path).parent() == Some(Path::new("/dev")))
}

fn has_namespace(linux: &Value, kind: &str) -> bool {
    linux
        .get("namespaces")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|namespace| namespace.get("type").and_then(Value::as_str) == Some(kind))
}

/// Whether a namespace is to be made rather than joined.
fn has_new_namespace(linux: &Value, kind: &str) -> bool {
    let text = |namespace: &Value, key: &str| {
        namespace
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    linux
        .get("namespaces")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|namespace| text(namespace, "type") == kind && text(namespace, "path").is_empty())
}

/// An object that may be absent; anything else is named.
fn object(value: Option<&Value>, what: &str) -> Result<serde_json::Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Ok(serde_json::Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(other) => invalid(format!("{what} is {other}, not an object")),
    }
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
        // Like every other runtime: what is in it decides, not what it calls itself.
        tracing::debug!("config.json has ociVersion {version:?}, this runtime knows 1.x");
    }
    let Some(process) = root.get("process").filter(|value| !value.is_null()) else {
        return invalid("process property must not be empty");
    };
    check_process(process)?;
    let linux = root.get("linux").unwrap_or(&Value::Null);
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
    check_namespaces(linux)
}

fn check_namespaces(linux: &Value) -> Result<()> {
    let mut seen: Vec<&str> = Vec::new();
    let list = linux.get("namespaces").and_then(Value::as_array);
    for namespace in list.into_iter().flatten() {
        let kind = namespace
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if seen.contains(&kind) {
            return invalid(format!(
                "malformed spec file: duplicated namespace {kind:?}"
            ));
        }
        seen.push(kind);
    }
    let mapped = |key: &str| {
        linux
            .get(key)
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
    };
    if has_new_namespace(linux, "user") {
        for (key, what) in [("uidMappings", "uid"), ("gidMappings", "gid")] {
            if !mapped(key) {
                return invalid(format!(
                    "user namespaces enabled, but no {what} mapping found"
                ));
            }
        }
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
                Some(text) if key == "env" && !text.contains('=') => {
                    return invalid(format!("invalid environment variable: {text:?}"));
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
fn drop_unknown_capabilities(sets: &mut Value) {
    let supported = supported_capabilities();
    let lists = sets.as_object_mut().into_iter().flatten();
    for list in lists.filter_map(|(_, list)| list.as_array_mut()) {
        *list = known_capabilities(std::mem::take(list), &supported);
    }
}

/// The capabilities that this kernel has.
pub(super) fn supported_capabilities() -> HashSet<Capability> {
    caps::runtime::procfs_all_supported(None).unwrap_or_else(|_| caps::all())
}

/// The names of a list that this kernel has; what is no text stays, to be refused by its type.
pub(super) fn known_capabilities(list: Vec<Value>, supported: &HashSet<Capability>) -> Vec<Value> {
    let known = |value: &Value| {
        value.as_str().is_none_or(|name| {
            Capability::from_str(name).is_ok_and(|capability| supported.contains(&capability))
        })
    };
    let (known, unknown): (Vec<_>, Vec<_>) = list.into_iter().partition(known);
    if !unknown.is_empty() {
        let unknown = Value::Array(unknown);
        tracing::warn!("ignoring unknown or unavailable capabilities: {unknown}");
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": {"cwd": "/", "args": ["sh"], "env": [], "user": {"uid": 0, "gid": 0}},
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
            ("/process/cwd", json!(""), "Cwd"),
            ("/process/cwd", json!("tmp"), "absolute"),
            ("/process/args", json!([]), "args"),
            ("/process/args", json!(["a", 1]), "process.args"),
            ("/process/args", json!(["a\u{0}"]), "NUL"),
            (
                "/linux",
                json!({"namespaces": [{"type": "pid"}, {"type": "pid"}]}),
                "duplicated",
            ),
            (
                "/linux",
                json!({"namespaces": [{"type": "user"}]}),
                "mapping",
            ),
            ("/process/env", json!(["A"]), "environment"),
        ] {
            let mut config = minimal();
            *config.pointer_mut(pointer).unwrap() = value;
            let err = check(&config).unwrap_err().to_string();
            assert!(err.contains(word), "{pointer}: {err}");
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for (key, value) in [
            ("personality", json!({"domain": "LINUX", "flags": ["X"]})),
            ("intelRdt", json!({})),
        ] {
            let mut config = minimal();
            config["linux"][key] = value;
            assert!(
                matches!(check(&config), Err(RuntimeError::Unsupported(_))),
                "{key}"
            );
        }
    }

    #[test]
    fn without_capabilities_a_process_has_none() {
        let workload = Bundle::workload(&minimal()).unwrap();
        for set in [
            workload.capabilities.bounding(),
            workload.capabilities.effective(),
            workload.capabilities.permitted(),
            workload.capabilities.inheritable(),
            workload.capabilities.ambient(),
        ] {
            assert_eq!(set.as_ref().map(|set| set.len()), Some(0));
        }
    }

    #[test]
    fn unknown_fields_and_capabilities_are_left_out_and_not_refused() {
        let mut config = minimal();
        config["futureField"] = json!({"a": 1});
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_FUTURE"]});
        let spec = Bundle::engine_spec(&config, Path::new("/r"), Vec::new()).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.no_new_privileges(), None);
        assert!(process.capabilities().is_none());
        let bounding = Bundle::workload(&config)
            .unwrap()
            .capabilities
            .bounding()
            .clone();
        assert_eq!(bounding.unwrap().len(), 1);
    }

    #[test]
    fn a_field_of_the_wrong_form_is_named_with_its_path() {
        let mut config = minimal();
        config["process"]["terminal"] = json!("no");
        let err = Bundle::workload(&config).unwrap_err();
        assert!(err.to_string().contains("process: terminal"), "{err}");
    }
}
