//! The configuration of containerd, as far as the runtime class of its CRI plugin is concerned. Pure: text in, text out.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// The name of the runtime class, and of the runtime in Docker.
pub(super) const CLASS: &str = "elastic-mem";
/// The shim, as containerd names it.
pub(super) const RUNTIME_TYPE: &str = "io.containerd.elastic-mem.v1";
/// The kind of options that our shim is given; only the shim looks at it.
pub(super) const OPTIONS_TYPE: &str = "io.containerd.elastic-mem.v1.options";
/// Annotations of pods that reach the shim: ours, and those that name functions (`path.Match`: `*` stops at `/`).
const POD_ANNOTATIONS: &str = r#"["elastic-mem.io/*", "com.openfaas.*", "serving.knative.dev/*"]"#;
/// Annotations of single containers, which only the kubelet makes.
const CONTAINER_ANNOTATIONS: &str = r#"["elastic-mem.io/*"]"#;

/// The version of a configuration file, which decides the names of tables (containerd, `docs/PLUGINS.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileVersion(pub(super) u32);

impl FileVersion {
    /// The table of the plugin that knows runtime classes, below `plugins`.
    fn plugin(self) -> &'static str {
        match self.0 {
            0 | 1 => "cri",
            2 => "io.containerd.grpc.v1.cri",
            _ => "io.containerd.cri.v1.runtime",
        }
    }
}

/// A release of containerd or Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl Release {
    /// From the answer to `--version`: the first word that begins like a version.
    ///
    /// `containerd github.com/containerd/containerd/v2 v2.1.9 …`, `Docker version 20.10.24+dfsg1, build …`
    pub(super) fn parse(answer: &str) -> Option<Self> {
        answer.split_ascii_whitespace().find_map(|word| {
            let mut parts = word.trim_start_matches('v').split('.');
            let major = parts.next()?.parse().ok()?;
            let minor = parts.next()?;
            let digits = minor.find(|c: char| !c.is_ascii_digit());
            let minor = minor.get(..digits.unwrap_or(minor.len()))?.parse().ok()?;
            Some(Self { major, minor })
        })
    }
}

/// Text that is no TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The line, from 1.
    pub(super) line: usize,
    /// What is wrong with it.
    pub(super) text: String,
}

/// What a configuration file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The version that it is written for; 1 if it says none.
    pub(super) version: FileVersion,
    /// Files that it imports, as patterns.
    pub(super) imports: Vec<String>,
    /// Whether it turns the CRI plugin off.
    pub(super) cri_is_off: bool,
    /// The runtime classes that it names.
    pub(super) classes: Vec<String>,
    /// Whether runc's class lets systemd make control groups.
    pub(super) systemd_cgroup: bool,
}

/// Reads a configuration file, or what `containerd config dump` prints.
///
/// # Errors
/// `Mistake`.
pub(super) fn facts(text: &str) -> Result<Facts, Mistake> {
    let table: Table = text.parse().map_err(|err: toml::de::Error| {
        let start = err.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        Mistake {
            line: before.matches('\n').count().saturating_add(1),
            text: err.message().to_owned(),
        }
    })?;
    let version = table.get("version").and_then(Value::as_integer);
    let version = version.and_then(|number| u32::try_from(number).ok());
    let version = FileVersion(version.unwrap_or(1));
    let strings = |key: &str| -> Vec<String> {
        let list = table.get(key).and_then(Value::as_array);
        let strings = list.into_iter().flatten().filter_map(Value::as_str);
        strings.map(str::to_owned).collect()
    };
    let runtimes = ["plugins", version.plugin(), "containerd", "runtimes"]
        .iter()
        .try_fold(&table, |table, key| table.get(*key)?.as_table());
    let runc = runtimes.and_then(|runtimes| runtimes.get("runc")?.get("options"));
    Ok(Facts {
        version,
        imports: strings("imports"),
        cri_is_off: strings("disabled_plugins").iter().any(|name| {
            [
                "cri",
                "io.containerd.grpc.v1.cri",
                "io.containerd.cri.v1.runtime",
            ]
            .contains(&name.as_str())
        }),
        classes: runtimes.map_or_else(Vec::new, |runtimes| runtimes.keys().cloned().collect()),
        systemd_cgroup: runc
            .and_then(|options| options.get("SystemdCgroup")?.as_bool())
            .unwrap_or_default(),
    })
}

/// The folder whose files a main file imports, if it imports every file of one that ends in `.toml`.
pub(super) fn drop_in_folder(imports: &[String], main: &Path) -> Option<PathBuf> {
    imports.iter().find_map(|pattern| {
        let pattern = Path::new(pattern);
        let name = pattern.file_name()?.to_str()?;
        let folder = pattern.parent()?;
        let is_plain = !folder.to_string_lossy().contains(['*', '?', '[']);
        // A path that is not absolute counts from the file that names it.
        (is_plain && ["*.toml", "*"].contains(&name))
            .then(|| main.parent().unwrap_or(main).join(folder))
    })
}

/// The runtime class as it is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Class {
    /// The shim, if containerd does not find it by name.
    pub(super) shim: Option<PathBuf>,
    /// Our configuration file, if it is not where it is looked for anyway.
    pub(super) config: Option<PathBuf>,
    /// Whether systemd makes control groups.
    pub(super) systemd_cgroup: bool,
    /// Whether to name runc's class too. containerd 1.6 and 1.7 know it by themselves only while no other is named.
    pub(super) with_runc: bool,
}

impl Class {
    /// The tables of the class, for a file of that version.
    pub(super) fn tables(&self, version: FileVersion) -> String {
        let plugin = match version.plugin() {
            "cri" => "cri".to_owned(),
            name => format!("{name:?}"),
        };
        let runtimes = format!("plugins.{plugin}.containerd.runtimes");
        let mut out = String::new();
        if self.with_runc {
            out += &format!("[{runtimes}.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n");
        }
        out += &format!("[{runtimes}.{CLASS}]\nruntime_type = {RUNTIME_TYPE:?}\n");
        if let Some(shim) = &self.shim {
            out += &format!("runtime_path = {}\n", quoted(shim));
        }
        out += &format!(
            "pod_annotations = {POD_ANNOTATIONS}\ncontainer_annotations = {CONTAINER_ANNOTATIONS}\n"
        );
        // With ConfigPath no other key reaches the shim; without it the whole table does.
        let options = match &self.config {
            Some(config) => format!("ConfigPath = {}\n", quoted(config)),
            None if self.systemd_cgroup => "SystemdCgroup = true\n".to_owned(),
            None => return out,
        };
        out + &format!("\n[{runtimes}.{CLASS}.options]\nTypeUrl = {OPTIONS_TYPE:?}\n{options}")
    }

    /// The same as a file of its own.
    pub(super) fn file(&self, version: FileVersion) -> String {
        format!("version = {}\n\n{}", version.0, self.tables(version))
    }
}

/// A path as a string of TOML.
fn quoted(path: &Path) -> String {
    Value::from(path.to_string_lossy().into_owned()).to_string()
}
