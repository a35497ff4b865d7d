//! An image made of the static busybox of this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::at_exit::at_exit;
use super::{Cmd, host};

/// The name the image has in a containerd.
pub const NAME: &str = "test.local/busybox:1";
/// The same files as what holds the namespaces of a pod.
pub const PAUSE: &str = "test.local/pause:1";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nuser:x:1000:\n";

struct Image {
    dir: TempDir,
}

static IMAGE: LazyLock<Image> = LazyLock::new(|| {
    let dir = tempfile::Builder::new()
        .prefix("elastic-mem-image-")
        .tempdir()
        .expect("image directory");
    at_exit(|| {
        let _ = fs::remove_dir_all(IMAGE.dir.path());
    });
    build(dir.path());
    Image { dir }
});

/// A tar archive of the root filesystem alone, for `docker import`.
pub fn rootfs_tar() -> PathBuf {
    IMAGE.dir.path().join("rootfs.tar")
}

/// The root filesystem as a folder.
pub fn rootfs_dir() -> PathBuf {
    IMAGE.dir.path().join("rootfs")
}

/// A tar archive in the OCI image layout, for `ctr images import`.
pub fn oci_tar() -> PathBuf {
    IMAGE.dir.path().join("image.tar")
}

fn build(dir: &Path) {
    let rootfs = dir.join("rootfs");
    let busybox = host::find("busybox").expect("busybox");
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(name)).expect("directory");
    }
    let everyone = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(rootfs.join("tmp"), everyone).expect("mode of /tmp");
    fs::copy(&busybox, rootfs.join("bin/busybox")).expect("busybox");
    let applets = Cmd::new(&busybox).arg("--list").output().stdout;
    for applet in applets.lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).expect("link");
    }
    fs::write(rootfs.join("etc/passwd"), PASSWD).expect("passwd");
    fs::write(rootfs.join("etc/group"), GROUP).expect("group");
    let layer = dir.join("rootfs.tar");
    tar(&rootfs, &layer);

    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directory");
    let layer_descriptor = blob(
        &blobs,
        "application/vnd.oci.image.layer.v1.tar",
        &fs::read(&layer).expect("layer"),
    );
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let manifest = |name: &str, command: &[&str]| {
        let config = json!({"architecture": architecture, "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]}});
        let config_descriptor = blob(
            &blobs,
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let manifest = json!({"schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config_descriptor, "layers": [layer_descriptor]});
        let mut descriptor = blob(
            &blobs,
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        descriptor["annotations"] = json!({"io.containerd.image.name": name});
        descriptor
    };
    let manifests = [
        manifest(NAME, &["sh"]),
        manifest(PAUSE, &["sleep", "1000000"]),
    ];
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(layout.join("index.json"), index.to_string()).expect("index");
    let version = json!({"imageLayoutVersion": "1.0.0"});
    fs::write(layout.join("oci-layout"), version.to_string()).expect("layout");
    tar(&layout, &dir.join("image.tar"));
}

/// Stores a blob below its digest; its descriptor.
fn blob(dir: &Path, media_type: &str, content: &[u8]) -> Value {
    let file = dir.join("new");
    fs::write(&file, content).expect("blob");
    let sum = Cmd::new("sha256sum").arg(&file).output();
    let digest = sum.stdout.split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(digest.len(), 64, "{sum}");
    fs::rename(&file, dir.join(&digest)).expect("blob");
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()})
}

fn tar(dir: &Path, archive: &Path) {
    let outcome = Cmd::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "-cf"])
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .arg(".")
        .output();
    assert_eq!(outcome.code, 0, "{outcome}");
}
