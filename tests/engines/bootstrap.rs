//! How the shim is started, and what it says of itself.

use std::fs::{self, File};
use std::path::Path;

use containerd_shim_protos::api;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::types::introspection::RuntimeInfo;

use crate::harness::shim::{self, V2};
use crate::harness::ttrpc::Client;
use crate::harness::{Case, Cmd, Route, leaks, wait_until};

on_one_shim! {
    version,
    information,
    bootstrap_with_parameters,
    bootstrap_with_options,
}

fn version(c: &mut Case) {
    let outcome = Cmd::new(shim::program(c)).arg("-v").output();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.contains("Version:"), "{outcome}");
}

fn information(c: &mut Case) {
    let dir = tempfile::tempdir().expect("directory");
    let path = format!(
        "{}:/usr/sbin:/usr/bin",
        c.daemon.dir().join("bin").display()
    );
    let output = Cmd::new(shim::program(c))
        .env("PATH", path)
        .dir(dir.path())
        .arg("-info")
        .into_inner()
        .output()
        .expect("run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let info = RuntimeInfo::parse_from_bytes(&output.stdout).expect("RuntimeInfo");
    c.note("type of the features", &info.features.type_url);
    let features: serde_json::Value =
        serde_json::from_slice(&info.features.value).expect("features are JSON");
    c.note("hooks", &features["hooks"].is_array().to_string());
    assert!(features["mountOptions"].is_array(), "{features}");
    assert!(!info.name.is_empty());
    assert!(info.version.is_some());
    if c.route == Route::Shim {
        assert_eq!(info.name, "io.containerd.elastic-mem.v1");
    }
}

/// The action `start` with bytes on its standard input.
fn start_with_input(c: &mut Case, name: &str, input: &[u8]) -> (Vec<u8>, Vec<u8>, File) {
    let id = c.id(name);
    let (bundle, log) = shim::make_bundle(c, name, "exec sleep 1000", |_| {});
    let ttrpc = c.daemon.dir().join("c.sock.ttrpc");
    let file = bundle.join("stdin");
    fs::write(&file, input).expect("input");
    // The shim inherits no pipe of the test: its end must not be waited for.
    let (out, err) = (bundle.join("stdout"), bundle.join("stderr"));
    let mut command = shim::command(c, &bundle, &id, &ttrpc)
        .arg("start")
        .into_inner();
    command
        .stdin(File::open(&file).expect("input"))
        .stdout(File::create(&out).expect("output"))
        .stderr(File::create(&err).expect("output"));
    let status = crate::harness::command::spawn_plain(&mut command)
        .wait()
        .expect("wait");
    let message = fs::read_to_string(&err).expect("output");
    assert!(status.success(), "{message}");
    (
        fs::read(out).expect("output"),
        fs::read(err).expect("output"),
        log,
    )
}

/// Kills the shim that `start` has left, and clears up after it.
fn end_started(c: &mut Case, name: &str, socket: &Path) {
    let mut client = Client::connect(socket, V2);
    let mut request = api::ShutdownRequest::new();
    request.id = c.id(name);
    client.send("Shutdown", &request);
    let _ = client.receive_or_end();
    wait_until("the shim has ended", || !leaks::is_served(socket));
    let bundle = c.daemon.dir().join("bundles").join(c.id(name));
    fs::remove_dir_all(bundle).expect("bundle");
}

/// The protocol of containerd 2.3, which no engine here has yet.
fn bootstrap_with_parameters(c: &mut Case) {
    if c.route != Route::Shim {
        return;
    }
    let mut params = BootstrapParams::new();
    params.instance_id = c.id("a");
    params.namespace.clone_from(&c.daemon.namespace);
    params.containerd_version = "2.3.0".into();
    params.containerd_ttrpc_address = c
        .daemon
        .dir()
        .join("c.sock.ttrpc")
        .to_string_lossy()
        .into_owned();
    params.containerd_grpc_address = c.daemon.socket().to_string_lossy().into_owned();
    params.containerd_binary = "/bin/true".into();
    let (out, err, _log) = start_with_input(c, "a", &params.write_to_bytes().expect("encode"));
    assert_eq!(String::from_utf8_lossy(&err), "");
    let result = BootstrapResult::parse_from_bytes(&out).expect("BootstrapResult");
    assert_eq!(result.protocol, "ttrpc");
    assert!([2, 3].contains(&result.version), "{}", result.version);
    let socket = shim::socket_of(&result.address);
    c.watch_socket(&socket);
    end_started(c, "a", &socket);
}

/// Older containerds send the options of the runtime, or nothing. An `Any`
/// can be read as parameters, but not as those of this container.
fn bootstrap_with_options(c: &mut Case) {
    if c.route != Route::Shim {
        return;
    }
    let mut options = Any::new();
    options.type_url = "containerd.runc.v1.Options".into();
    for (name, input) in [
        ("a", Vec::new()),
        ("b", options.write_to_bytes().expect("encode")),
    ] {
        let (out, err, _log) = start_with_input(c, name, &input);
        assert_eq!(String::from_utf8_lossy(&err), "");
        let text = String::from_utf8(out).expect("text");
        assert!(
            text.starts_with("unix://") && !text.ends_with('\n'),
            "{text:?}"
        );
        let socket = shim::socket_of(&text);
        c.watch_socket(&socket);
        end_started(c, name, &socket);
    }
}
