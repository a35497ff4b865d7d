//! `start` and `-info`: how containerd gets to a server of its own, and what it can ask before.
//!
//! containerd up to 2.2 writes the options of a container to standard input and reads a bare address.
//! containerd 2.3 writes `BootstrapParams` and reads `BootstrapResult` (containerd,
//! `api/runtime/bootstrap/v1`); it still sends the flags, and only if both agree is it that protocol.

use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, LogLevel};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use super::args::Args;
use super::bundle::Bundle;
use super::options::Options;
use crate::kernel::{children, exe};
use crate::runtime;

/// Where containerd expects sockets of shims; the path must be short.
const SOCKETS: &str = "/run/containerd/s";
/// The file in a bundle from which containerd reads the address when it comes back.
pub(super) const ADDRESS_FILE: &str = "address";
/// The Task service that we announce: with version 3 containerd expects a Sandbox service too.
const TASK_VERSION: i32 = 2;
/// Type of the features document (containerd, `api/types/runtimeoptions`; runtime-spec, "Features").
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// What containerd wrote to standard input.
#[derive(Debug, Default)]
struct Request {
    options: Option<Any>,
    /// Set when it speaks the protocol of containerd 2.3.
    params: Option<BootstrapParams>,
}

impl Request {
    fn parse(input: &[u8], args: &Args) -> Self {
        if input.is_empty() {
            return Self::default();
        }
        // An `Any` reads as `BootstrapParams` too, hence the comparison.
        let params = BootstrapParams::parse_from_bytes(input)
            .ok()
            .filter(|params| params.instance_id == args.id && params.namespace == args.namespace);
        match params {
            Some(params) => Self {
                options: params
                    .extensions
                    .iter()
                    .find_map(|extension| extension.value.as_ref())
                    .cloned(),
                params: Some(params),
            },
            None => Self {
                options: Any::parse_from_bytes(input).ok(),
                params: None,
            },
        }
    }

    fn reply(&self, address: &str) -> Result<Vec<u8>, String> {
        if self.params.is_none() {
            // Without a newline: containerd 1.7 takes it as part of the address.
            return Ok(address.as_bytes().to_vec());
        }
        let result = BootstrapResult {
            version: TASK_VERSION,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..BootstrapResult::default()
        };
        result
            .write_to_bytes()
            .map_err(|err| format!("encode the answer: {err}"))
    }

    fn debug(&self) -> bool {
        let level = self.params.as_ref().map(|params| params.log_level.value());
        level.is_some_and(|level| level <= LogLevel::LOG_LEVEL_DEBUG as i32)
    }

    fn socket_folder(&self) -> &Path {
        self.params
            .as_ref()
            .and_then(|params| params.socket_dir.as_deref())
            .filter(|dir| !dir.is_empty())
            .map_or(Path::new(SOCKETS), Path::new)
    }

    fn ttrpc_address(&self) -> Option<&str> {
        let params = self.params.as_ref()?;
        Some(params.containerd_ttrpc_address.as_str()).filter(|text| !text.is_empty())
    }
}

/// Starts a server for the container, or finds the one of its pod; the answer for containerd.
///
/// # Errors
/// What was tried and why it failed, for the user.
pub(super) fn start(args: &Args) -> Result<Vec<u8>, String> {
    if args.id.is_empty() {
        return Err("-id is missing".to_owned());
    }
    let mut input = Vec::new();
    io::stdin()
        .read_to_end(&mut input)
        .map_err(|err| format!("read standard input: {err}"))?;
    let request = Request::parse(&input, args);
    let options = Options::decode(request.options.as_ref())?;
    // containerd calls from the bundle folder.
    let bundle = Bundle::read(Path::new(".")).map_err(|err| err.to_string())?;
    let group = bundle.group(&args.id);
    let path = request
        .socket_folder()
        .join(socket_name(&args.address, &args.namespace, group));
    let address = format!("unix://{}", path.display());
    if let Some(listener) = listen(&path)? {
        let server = serve(args, &request, listener);
        let pid = server.inspect_err(|_| {
            // Nobody serves it.
            let _ = std::fs::remove_file(&path);
        })?;
        adjust(pid, &options);
    }
    runtime::write_atomic(Path::new(ADDRESS_FILE), address.as_bytes(), 0o644)
        .map_err(|err| runtime::chain(&err))?;
    request.reply(&address)
}

/// The name of the socket of a group: the same at every call, and of fixed length.
fn socket_name(address: &str, namespace: &str, group: &str) -> String {
    // FNV-1a with 128 bits: must not change with the version of this program.
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let text = format!("{address}/{namespace}/{group}");
    let hash = text.bytes().fold(START, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:032x}")
}

/// A new socket at `path`; `None` if somebody serves there already.
fn listen(path: &Path) -> Result<Option<UnixListener>, String> {
    let fail = |what: &str, err: &io::Error| {
        format!("{what} {}: {}", path.display(), crate::kernel::reason(err))
    };
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(folder)
            .map_err(|err| fail("create the folder of", &err))?;
    }
    loop {
        match UnixListener::bind(path) {
            Ok(listener) => {
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
                    .map_err(|err| fail("protect", &err))?;
                return Ok(Some(listener));
            }
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => {}
            Err(err) => return Err(fail("bind", &err)),
        }
        match UnixStream::connect(path) {
            Ok(_) => return Ok(None),
            // Left by a server that was killed.
            Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(|err| fail("remove stale", &err))?;
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(fail("connect to", &err)),
        }
    }
}

/// Leaves a server behind; its process id.
fn serve(args: &Args, request: &Request, listener: UnixListener) -> Result<u32, String> {
    let name = std::env::args_os().next().unwrap_or_default();
    let mut command = Command::new(exe::SELF);
    command
        .arg0(name)
        .args(["-namespace", &args.namespace])
        .args(["-id", &args.id])
        .args(["-address", &args.address])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    if args.debug || request.debug() {
        command.arg("-debug");
    }
    if let Some(address) = request.ttrpc_address() {
        command.env(super::server::TTRPC_ADDRESS, address);
    }
    exe::keep_heap_small(&mut command);
    children::give_descriptors(&mut command, vec![listener.into()])
        .and_then(|()| command.spawn())
        .map(|child| child.id())
        .map_err(|err| format!("start the server: {err}"))
}

/// What is set on the server from outside. It works without.
fn adjust(pid: u32, options: &Options) {
    // A little more willing to go than containerd itself.
    let parent = std::os::unix::process::parent_id();
    let adjusted = children::oom_score_adj(parent)
        .map(|score| score.saturating_add(1).min(1000))
        .and_then(|score| children::set_oom_score_adj(pid, score));
    // Standard error would spoil the answer, and there is no log yet.
    drop(adjusted);
    if let Some(path) = &options.shim_cgroup {
        drop(children::enter_cgroup(pid, path));
    }
}

/// Removes the socket that the file in a bundle names, unless somebody serves there.
pub(super) fn remove_socket(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join(ADDRESS_FILE)) else {
        return;
    };
    let path = PathBuf::from(address.trim().trim_start_matches("unix://"));
    if matches!(UnixStream::connect(&path), Err(err) if err.kind() == io::ErrorKind::ConnectionRefused)
    {
        // Somebody else may have removed it.
        let _ = std::fs::remove_file(path);
    }
}

/// What this runtime can do, for containerd 2 (`containerd.types.RuntimeInfo`).
///
/// Where it stands in for runc's shim it has that one's name.
///
/// # Errors
/// When it cannot be encoded.
pub(super) fn info(stands_in: bool) -> Result<Vec<u8>, String> {
    let mut input = Vec::new();
    // Options of the runtime, or nothing; they are given back.
    let options = io::stdin()
        .read_to_end(&mut input)
        .ok()
        .and_then(|_| Any::parse_from_bytes(&input).ok())
        .filter(|any| !any.type_url.is_empty());
    let features = serde_json::to_vec(&runtime::features())
        .map_err(|err| format!("encode the features: {err}"))?;
    let info = RuntimeInfo {
        name: match stands_in {
            true => "io.containerd.runc.v2",
            false => "io.containerd.elastic-mem.v1",
        }
        .to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        }),
        options: options.into(),
        features: MessageField::some(Any {
            type_url: FEATURES.to_owned(),
            value: features,
            ..Any::default()
        }),
        ..RuntimeInfo::default()
    };
    info.write_to_bytes()
        .map_err(|err| format!("encode the information: {err}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;

    fn args() -> Args {
        let line = "-namespace default -id a -address /c.sock start";
        Args::parse(line.split(' ').map(Into::into)).unwrap()
    }

    fn any() -> Any {
        Any {
            type_url: "runtimeoptions.v1.Options".to_owned(),
            value: vec![1],
            ..Any::default()
        }
    }

    #[test]
    fn containerd_up_to_2_2_gets_a_bare_address() {
        for input in [Vec::new(), any().write_to_bytes().unwrap()] {
            let request = Request::parse(&input, &args());
            assert_eq!(request.options.is_some(), !input.is_empty());
            assert_eq!(request.reply("unix:///s").unwrap(), b"unix:///s");
        }
    }

    #[test]
    fn containerd_2_3_gets_a_message() {
        let params = BootstrapParams {
            instance_id: "a".to_owned(),
            namespace: "default".to_owned(),
            log_level: LogLevel::LOG_LEVEL_DEBUG.into(),
            containerd_ttrpc_address: "/c.ttrpc".to_owned(),
            socket_dir: Some("/run/x".to_owned()),
            extensions: vec![Extension {
                value: MessageField::some(any()),
                ..Extension::default()
            }],
            ..BootstrapParams::default()
        };
        let request = Request::parse(&params.write_to_bytes().unwrap(), &args());
        assert_eq!(request.options, Some(any()));
        assert!(request.debug());
        assert_eq!(request.ttrpc_address(), Some("/c.ttrpc"));
        assert_eq!(request.socket_folder(), Path::new("/run/x"));
        let reply = request.reply("unix:///s").unwrap();
        let result = BootstrapResult::parse_from_bytes(&reply).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (2, "ttrpc"));
        assert_eq!(result.address, "unix:///s");
    }

    #[test]
    fn options_that_read_as_params_are_still_options() {
        // The first two fields of `Any` and of `BootstrapParams` have the same numbers.
        let any = Any {
            type_url: "a".to_owned(),
            value: b"other".to_vec(),
            ..Any::default()
        };
        let request = Request::parse(&any.write_to_bytes().unwrap(), &args());
        assert!(request.params.is_none());
        assert_eq!(request.options, Some(any));
    }

    #[test]
    fn a_group_has_one_socket() {
        let name = |group| socket_name("/c.sock", "default", group);
        assert_eq!(name("a"), name("a"));
        assert_ne!(name("a"), name("b"));
        assert_ne!(socket_name("/d.sock", "default", "a"), name("a"));
    }
}
