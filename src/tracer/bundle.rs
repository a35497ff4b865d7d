//! What is run, as a configuration of the runtime-spec over a root file system that is not changed.

use std::fs;
use std::path::{Path, PathBuf};

use pathrs::Root;
use serde_json::{Map, Value, json};

use super::error::{Result, TracerError};
use super::image::{self, ImageConfig, Origin};
use super::input::Bind;
use super::user;
use crate::model::MemoryLimit;
use crate::runtime::default_config;

/// Where a function comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image by name, or its file.
    Image {
        /// The name or the path.
        name: String,
        /// Where to look.
        origin: Origin,
        /// The namespace of containerd.
        namespace: String,
    },
    /// A folder with a root file system.
    Rootfs(PathBuf),
    /// A folder with `config.json` and a root file system (runtime-spec, "Filesystem Bundle").
    Bundle(PathBuf),
}

/// How a function is run. What is not given is as the image or the bundle says.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The command with its arguments; after the entry point of an image.
    pub command: Vec<String>,
    /// Further variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// Further mounts.
    pub mounts: Vec<Bind>,
    /// The input.
    pub inputs: Vec<Bind>,
    /// The limit of memory.
    pub memory: Option<MemoryLimit>,
    /// `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// The working directory.
    pub workdir: Option<PathBuf>,
    /// Use the network of the host; without, there is none.
    pub host_network: bool,
}

/// A function that can be run many times.
#[derive(Debug)]
pub(super) struct Template {
    /// The root file system that every run sees and none changes.
    pub(super) lower: PathBuf,
    pub(super) config: Value,
}

/// As an engine gives them to a container that asks for nothing.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What a process without a PATH of its own gets.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Gets a function ready. An image is unpacked below `folder`, which is empty.
///
/// # Errors
/// `Image`, `Usage` or `Io` with what is missing or wrong.
pub(super) fn prepare(source: &Source, options: &Options, folder: &Path) -> Result<Template> {
    let mut template = match source {
        Source::Image {
            name,
            origin,
            namespace,
        } => {
            let image = image::fetch(name, *origin, namespace, folder)?;
            of_image(image.rootfs, image.config, options)?
        }
        Source::Rootfs(rootfs) => {
            let is_folder = fs::metadata(rootfs)
                .map_err(|err| TracerError::io("open root file system", rootfs, err))?
                .is_dir();
            if !is_folder {
                return Err(TracerError::Usage(format!(
                    "{} is no folder with a root file system",
                    rootfs.display()
                )));
            }
            of_image(rootfs.clone(), ImageConfig::default(), options)?
        }
        Source::Bundle(bundle) => of_bundle(bundle)?,
    };
    let lower = fs::canonicalize(&template.lower)
        .map_err(|err| TracerError::io("open root file system", &template.lower, err))?;
    template.lower = lower;
    if !matches!(source, Source::Bundle(_)) {
        return finish(template, options);
    }
    if !options.command.is_empty() {
        put(
            &mut template.config,
            &["process"],
            "args",
            json!(options.command),
        );
    }
    if let Some(workdir) = &options.workdir {
        put(&mut template.config, &["process"], "cwd", json!(workdir));
    }
    if let Some(text) = &options.user {
        let user = find_user(&template.lower, text)?;
        put(&mut template.config, &["process"], "user", user);
    }
    finish(template, options)
}

/// An image's process, or any program of a root file system.
fn of_image(rootfs: PathBuf, image: ImageConfig, options: &Options) -> Result<Template> {
    let mut args = image.entrypoint.unwrap_or_default();
    if options.command.is_empty() {
        args.extend(image.cmd.unwrap_or_default());
    } else {
        args.extend(options.command.iter().cloned());
    }
    if args.is_empty() {
        return Err(TracerError::Usage(
            "nothing says what is to run: give the command after --".to_owned(),
        ));
    }
    let mut env = image.env.unwrap_or_default();
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.insert(0, PATH.to_owned());
    }
    let user = options.user.clone().or(image.user).unwrap_or_default();
    let cwd = options
        .workdir
        .clone()
        .or(image
            .working_dir
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("/"));
    let mut config = default_config(false);
    let process = json!({
        "terminal": false,
        "user": find_user(&rootfs, &user)?,
        "args": args,
        "env": env,
        "cwd": cwd,
        "capabilities": {
            "bounding": CAPABILITIES,
            "effective": CAPABILITIES,
            "permitted": CAPABILITIES,
        },
    });
    put(&mut config, &[], "process", process);
    let root = json!({"path": "rootfs", "readonly": false});
    put(&mut config, &[], "root", root);
    Ok(Template {
        lower: rootfs,
        config,
    })
}

fn find_user(rootfs: &Path, text: &str) -> Result<Value> {
    let found = Root::open(rootfs)
        .map_err(|err| err.to_string())
        .and_then(|root| user::find(&root, text))
        .map_err(TracerError::Usage)?;
    Ok(json!({"uid": found.uid, "gid": found.gid, "additionalGids": found.others}))
}

/// A bundle, with a control group and a root file system of each run's own.
fn of_bundle(bundle: &Path) -> Result<Template> {
    let path = bundle.join("config.json");
    let bytes = fs::read(&path).map_err(|err| TracerError::io("read", &path, err))?;
    let mut config: Value = serde_json::from_slice(&bytes)
        .map_err(|err| TracerError::Usage(format!("{}: {err}", path.display())))?;
    if !config.is_object() {
        return Err(TracerError::Usage(format!(
            "{} holds no object",
            path.display()
        )));
    }
    let rootfs = config
        .pointer("/root/path")
        .and_then(Value::as_str)
        .map_or_else(|| bundle.join("rootfs"), |path| bundle.join(path));
    put(&mut config, &["root"], "path", json!("rootfs"));
    put(&mut config, &["process"], "terminal", json!(false));
    // Its own group: counters begin at zero, and what others do in it is not measured.
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("cgroupsPath");
    }
    let mounts = config.get_mut("mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        let is_bind = mount.get("type").and_then(Value::as_str) == Some("bind")
            || mount
                .get("options")
                .and_then(Value::as_array)
                .is_some_and(|all| all.iter().any(|one| one == "bind" || one == "rbind"));
        // Relative to the bundle, which each run has its own of.
        let source = mount.get("source").and_then(Value::as_str);
        if let Some(source) = source.filter(|_| is_bind).map(|source| bundle.join(source)) {
            put(mount, &[], "source", json!(source));
        }
    }
    Ok(Template {
        lower: rootfs,
        config,
    })
}

/// What is the same for both.
fn finish(mut template: Template, options: &Options) -> Result<Template> {
    let config = &mut template.config;
    if let Some(env) = list(config, &["process"], "env") {
        for pair in &options.env {
            let name = name_of(pair);
            env.retain(|known| known.as_str().is_none_or(|known| name_of(known) != name));
            env.push(json!(pair));
        }
    }
    let inputs = options.inputs.iter().map(|input| (input, true));
    let mounts = options.mounts.iter().map(|mount| (mount, mount.read_only));
    for (bind, read_only) in mounts.chain(inputs) {
        if !bind.source.exists() {
            return Err(TracerError::Usage(format!(
                "{} is to be mounted and does not exist",
                bind.source.display()
            )));
        }
        let access = if read_only { "ro" } else { "rw" };
        push_mount(
            config,
            &bind.source,
            &bind.target,
            &["rbind", access, "nosuid", "nodev"],
        );
    }
    if let Some(limit) = options.memory {
        put(
            config,
            &["linux", "resources", "memory"],
            "limit",
            json!(limit.as_spec()),
        );
    }
    if options.host_network {
        if let Some(namespaces) = list(config, &["linux"], "namespaces") {
            namespaces.retain(|one| one.get("type").and_then(Value::as_str) != Some("network"));
        }
        // Names are looked up as the host does it.
        let resolv = Path::new("/etc/resolv.conf");
        if resolv.exists() {
            push_mount(config, resolv, resolv, &["bind", "ro", "nosuid", "nodev"]);
        }
    }
    Ok(template)
}

fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

fn push_mount(config: &mut Value, source: &Path, target: &Path, options: &[&str]) {
    if let Some(mounts) = list(config, &[], "mounts") {
        mounts.push(json!({
            "destination": target,
            "type": "bind",
            "source": source,
            "options": options,
        }));
    }
}

/// Sets a key of the object at `path`. Objects on the way are made; where something else stands, the configuration is
/// wrong, and `create` says so.
fn put(config: &mut Value, path: &[&str], key: &str, value: Value) {
    if let Some(object) = object(config, path) {
        object.insert(key.to_owned(), value);
    }
}

/// The list under a key of the object at `path`, made if it is missing.
fn list<'a>(config: &'a mut Value, path: &[&str], key: &str) -> Option<&'a mut Vec<Value>> {
    object(config, path)?
        .entry(key)
        .or_insert_with(|| json!([]))
        .as_array_mut()
}

fn object<'a>(config: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    path.iter()
        .try_fold(config.as_object_mut()?, |object, key| {
            object
                .entry(*key)
                .or_insert_with(|| json!({}))
                .as_object_mut()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(config: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        folder
    }

    fn text<'a>(config: &'a Value, pointer: &str) -> &'a str {
        config
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    #[test]
    fn an_image_says_what_is_not_given() {
        let folder = tempfile::tempdir().unwrap();
        let image = ImageConfig {
            env: Some(vec!["PATH=/own".to_owned(), "A=1".to_owned()]),
            entrypoint: Some(vec!["/bin/f".to_owned()]),
            cmd: Some(vec!["default".to_owned()]),
            working_dir: Some("/work".to_owned()),
            user: Some("7:8".to_owned()),
        };
        let plain = of_image(folder.path().into(), image.clone(), &Options::default()).unwrap();
        let config = finish(plain, &Options::default()).unwrap().config;
        assert_eq!(config["process"]["args"], json!(["/bin/f", "default"]));
        assert_eq!(config["process"]["user"]["gid"], 8);
        assert_eq!(config["process"]["cwd"], "/work");
        let options = Options {
            command: vec!["given".to_owned()],
            env: vec!["A=2".to_owned(), "B=3".to_owned()],
            memory: Some(MemoryLimit::Bytes(1 << 20)),
            host_network: true,
            workdir: Some("/".into()),
            ..Options::default()
        };
        let changed = of_image(folder.path().into(), image, &options).unwrap();
        let config = finish(changed, &options).unwrap().config;
        assert_eq!(config["process"]["args"], json!(["/bin/f", "given"]));
        assert_eq!(config["process"]["env"], json!(["PATH=/own", "A=2", "B=3"]));
        assert_eq!(config["process"]["cwd"], "/");
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], 1 << 20);
        assert!(
            !config["linux"]["namespaces"]
                .to_string()
                .contains("network")
        );
        let nothing = of_image(
            folder.path().into(),
            ImageConfig::default(),
            &Options::default(),
        );
        assert!(matches!(nothing, Err(TracerError::Usage(_))));
    }

    #[test]
    fn a_bundle_keeps_what_concerns_nobody_else() {
        let folder = bundle(&json!({
            "process": {"args": ["a"], "terminal": true, "foreign": 1},
            "root": {"path": "root", "readonly": true},
            "mounts": [{"destination": "/d", "source": "data", "options": ["rbind"]},
                       {"destination": "/t", "source": "tmpfs", "type": "tmpfs"}],
            "linux": {"cgroupsPath": "/shared", "seccomp": {"x": 1}},
        }));
        let source = Source::Bundle(folder.path().to_path_buf());
        let options = Options {
            command: vec!["b".to_owned()],
            ..Options::default()
        };
        let template = prepare(&source, &options, folder.path()).unwrap();
        assert!(template.lower.ends_with("root"));
        let config = template.config;
        assert_eq!(config["process"]["args"], json!(["b"]));
        assert_eq!(config["process"]["terminal"], false);
        assert_eq!(config["process"]["foreign"], 1);
        assert_eq!(config["root"], json!({"path": "rootfs", "readonly": true}));
        assert_eq!(config["linux"], json!({"seccomp": {"x": 1}}));
        assert!(text(&config, "/mounts/0/source").starts_with('/'));
        assert_eq!(text(&config, "/mounts/1/source"), "tmpfs");
    }

    #[test]
    fn a_bundle_of_another_form_is_left_for_create_to_refuse() {
        let folder =
            bundle(&json!({"process": 1, "mounts": {}, "linux": [], "root": {"path": "root"}}));
        let source = Source::Bundle(folder.path().to_path_buf());
        let options = Options {
            env: vec!["A=1".to_owned()],
            host_network: true,
            memory: Some(MemoryLimit::None),
            ..Options::default()
        };
        let config = prepare(&source, &options, folder.path()).unwrap().config;
        assert_eq!(config["process"], 1);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().join("nothing");
        let options = Options {
            command: vec!["a".to_owned()],
            inputs: vec![Bind::parse(nothing.to_str().unwrap(), true).unwrap()],
            ..Options::default()
        };
        for source in [
            Source::Rootfs(nothing.clone()),
            Source::Bundle(nothing.clone()),
            Source::Rootfs(folder.path().to_path_buf()),
        ] {
            let err = prepare(&source, &options, folder.path()).unwrap_err();
            assert!(err.to_string().contains("nothing"), "{source:?}: {err}");
        }
    }
}
