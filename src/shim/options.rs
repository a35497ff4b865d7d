//! Options of a container, in every form in which containerd hands them over.

use std::path::PathBuf;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message};
use containerd_shim_protos::shim::oci;
use serde::Deserialize;

use crate::control::{RUNTIME_STATE, STATE};

/// Type of the options of runc's shim.
const RUNC: &str = "containerd.runc.v1.Options";
/// Type of the options of every other runtime in containerd's CRI.
const GENERIC: [&str; 2] = [
    "runtimeoptions.v1.Options",
    "containerd.runtimeoptions.v1.Options",
];

/// Options as this shim uses them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// State folder of the caller's choice, above that of the namespace.
    pub(super) root: Option<PathBuf>,
    /// Whether systemd makes control groups.
    pub(super) systemd_cgroup: bool,
    /// The control group for the shim itself.
    pub(super) shim_cgroup: Option<PathBuf>,
    /// Configuration file in place of the default one.
    pub(super) config: Option<PathBuf>,
    /// Leave the root file system by chroot(2) instead of pivot_root(2).
    pub(super) no_pivot: bool,
    /// Give the container no session keyring of its own.
    pub(super) no_new_keyring: bool,
    /// User and group that own the pipes of a logger (`binary://`).
    pub(super) io_owner: (u32, u32),
}

/// The section of containerd's configuration when it names no file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    systemd_cgroup: bool,
    shim_cgroup: PathBuf,
    root: PathBuf,
    config_path: PathBuf,
}

impl Options {
    /// Understands the options of a request; absent or of an unknown type means none.
    ///
    /// # Errors
    /// What is wrong with them, for the user.
    pub(super) fn decode(any: Option<&Any>) -> Result<Self, String> {
        let Some(any) = any else {
            return Ok(Self::default());
        };
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if name == RUNC {
            let runc = oci::Options::parse_from_bytes(&any.value)
                .map_err(|err| format!("cannot read options of type {RUNC}: {err}"))?;
            return Ok(Self {
                root: path(&runc.root),
                systemd_cgroup: runc.systemd_cgroup,
                shim_cgroup: path(&runc.shim_cgroup),
                config: None,
                no_pivot: runc.no_pivot_root,
                no_new_keyring: runc.no_new_keyring,
                io_owner: (runc.io_uid, runc.io_gid),
            });
        }
        if GENERIC.contains(&name) {
            return generic(&any.value);
        }
        if !name.is_empty() {
            tracing::warn!(name, "options of an unknown type are not used");
        }
        Ok(Self::default())
    }

    /// The state folder of the runtime for a namespace.
    pub(super) fn runtime_root(&self, namespace: &str) -> PathBuf {
        match &self.root {
            Some(root) => root.join(namespace),
            None => [STATE, namespace, RUNTIME_STATE].iter().collect(),
        }
    }
}

/// `runtimeoptions.v1.Options`: a file of our own, or a section of containerd's configuration as TOML.
fn generic(bytes: &[u8]) -> Result<Options, String> {
    let (mut config_path, mut body) = (String::new(), Vec::new());
    let mut read = || -> containerd_shim_protos::protobuf::Result<()> {
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag >> 3 {
                2 => config_path = input.read_string()?,
                3 => body = input.read_bytes()?,
                _ => containerd_shim_protos::protobuf::rt::skip_field_for_tag(tag, &mut input)?,
            }
        }
        Ok(())
    };
    read().map_err(|err| format!("cannot read options of type {}: {err}", GENERIC[0]))?;
    let text = String::from_utf8_lossy(&body);
    let body: Body =
        toml::from_str(&text).map_err(|err| format!("cannot read the options section: {err}"))?;
    Ok(Options {
        root: path(body.root),
        systemd_cgroup: body.systemd_cgroup,
        shim_cgroup: path(body.shim_cgroup),
        config: path(config_path).or_else(|| path(body.config_path)),
        ..Options::default()
    })
}

fn path(text: impl Into<PathBuf>) -> Option<PathBuf> {
    Some(text.into()).filter(|path: &PathBuf| !path.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn any(name: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: name.to_owned(),
            value,
            ..Any::default()
        }
    }

    /// Field 2 and 3 of `runtimeoptions.v1.Options`, as bytes on the wire.
    fn generic_bytes(config_path: &str, body: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (field, text) in [(2_u8, config_path), (3, body)] {
            bytes.push(field << 3 | 2);
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn no_options_and_unknown_options_are_the_defaults() {
        assert_eq!(Options::decode(None), Ok(Options::default()));
        let other = any("some.other.v1.Options", vec![1, 2, 3]);
        assert_eq!(Options::decode(Some(&other)), Ok(Options::default()));
    }

    #[test]
    fn a_file_of_our_own() {
        let any = any(GENERIC[0], generic_bytes("/etc/x.toml", ""));
        let options = Options::decode(Some(&any)).unwrap();
        assert_eq!(options.config.as_deref(), Some(Path::new("/etc/x.toml")));
    }

    #[test]
    fn a_section_of_containerd_s_configuration() {
        let body = "SystemdCgroup = true\nOther = 1\n";
        let any = any(
            "types.containerd.io/runtimeoptions.v1.Options",
            generic_bytes("", body),
        );
        assert!(Options::decode(Some(&any)).unwrap().systemd_cgroup);
    }

    #[test]
    fn options_of_runc_s_shim() {
        let runc = oci::Options {
            root: "/run/docker/runtime-runc".to_owned(),
            systemd_cgroup: true,
            ..oci::Options::default()
        };
        let any = any(RUNC, runc.write_to_bytes().unwrap());
        let options = Options::decode(Some(&any)).unwrap();
        assert!(options.systemd_cgroup);
        assert_eq!(
            options.runtime_root("moby"),
            Path::new("/run/docker/runtime-runc/moby")
        );
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        for name in [RUNC, GENERIC[0]] {
            let err = Options::decode(Some(&any(name, vec![0xff; 9]))).unwrap_err();
            assert!(err.contains("Options"), "{err}");
        }
        let bad = any(GENERIC[0], generic_bytes("", "no = toml = here"));
        assert!(Options::decode(Some(&bad)).is_err());
    }
}
