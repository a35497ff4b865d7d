//! Root filesystems from a static busybox.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::at_exit::at_exit;
use super::host;

/// One copy of busybox and its applet list per test process. Root filesystems
/// hard-link the copy: writing an executable while another thread forks would
/// make its execution fail with ETXTBSY.
struct Template {
    dir: TempDir,
    applets: Vec<String>,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let busybox = host::find("busybox").expect("busybox");
    let dir = tempfile::Builder::new()
        .prefix("elastic-mem-busybox-")
        .tempdir()
        .expect("template directory");
    fs::copy(&busybox, dir.path().join("busybox")).expect("copy busybox");
    let list = Command::new(&busybox)
        .arg("--list")
        .output()
        .expect("busybox --list");
    let applets = String::from_utf8(list.stdout)
        .expect("applet names")
        .lines()
        .map(str::to_owned)
        .collect();
    at_exit(|| {
        let _ = fs::remove_dir_all(TEMPLATE.dir.path());
    });
    Template { dir, applets }
});

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
user:x:1000:1000:user:/home/user:/bin/sh
";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nstaff:x:50:user\nuser:x:1000:\n";

/// Fills `root` (which must not exist) with a small Unix.
pub fn build(root: &Path) {
    let made = (|| -> std::io::Result<()> {
        fs::create_dir(root)?;
        for dir in [
            "bin",
            "dev",
            "etc",
            "home",
            "home/user",
            "mnt",
            "proc",
            "root",
            "sys",
            "tmp",
            "var",
        ] {
            fs::create_dir(root.join(dir))?;
            fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o755))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        chown(root.join("home/user"), Some(1000), Some(1000))?;
        let busybox = TEMPLATE.dir.path().join("busybox");
        fs::hard_link(busybox, root.join("bin/busybox"))?;
        for applet in TEMPLATE.applets.iter().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        fs::write(root.join("etc/passwd"), PASSWD)?;
        fs::write(root.join("etc/group"), GROUP)
    })();
    made.unwrap_or_else(|error| panic!("root filesystem {}: {error}", root.display()));
}
