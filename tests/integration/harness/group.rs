//! A control group without a container, for tests of what the kernel does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use elastic_mem::kernel::cgroup::{Cgroup, Hierarchies};

use super::{cgroups, command, eventually};

pub const MIB: u64 = 1 << 20;

/// A group in the hierarchy that counts memory; removed with all processes in it when it is dropped.
pub struct Group {
    pub cgroup: Cgroup,
    path: String,
}

impl Group {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::at(format!("{}/m{number}", cgroups::prefix()))
    }

    /// A group in this one.
    pub fn below(&self, name: &str) -> Self {
        Self::at(format!("{}/{name}", self.path))
    }

    fn at(path: String) -> Self {
        let hierarchies = Hierarchies::probe().expect("hierarchies");
        let cgroup = Cgroup::for_spec(&hierarchies, Some(Path::new(&path)), "").expect("cgroup");
        let memory = cgroup.memory().expect("memory controller").to_path_buf();
        let directories = cgroup.directories.into_iter();
        let cgroup = Cgroup {
            version: cgroup.version,
            directories: directories.filter(|dir| dir.path == memory).collect(),
        };
        cgroup.create().expect("create");
        Self { cgroup, path }
    }

    pub fn folder(&self) -> PathBuf {
        self.cgroup
            .memory()
            .expect("memory controller")
            .to_path_buf()
    }

    pub fn read(&self, file: &str) -> String {
        let text = fs::read_to_string(self.folder().join(file)).expect(file);
        text.trim_end().to_owned()
    }

    pub fn write(&self, file: &str, value: impl ToString) {
        fs::write(self.folder().join(file), value.to_string()).expect(file);
    }

    /// Runs a shell script in the group.
    pub fn run(&self, script: &str) -> Child {
        let enter = format!("echo $$ > {}/cgroup.procs; ", self.folder().display());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &(enter + script)]).stdin(Stdio::null());
        command::spawn_plain(&mut command)
    }

    /// Runs a process that has so many MiB of anonymous memory, and keeps them.
    pub fn hold(&self, mib: u64) -> Holder {
        let before = self.anon();
        // It cannot write all of its buffer into the pipe. A read fails, or ends early, where a limit is met meanwhile.
        let dd = format!("dd if=/dev/zero bs={mib}M count=1 iflag=fullblock 2>/dev/null");
        let script = format!("for n in 1 2 3 4 5; do {dd} && break; done | exec sleep 1000");
        let holder = Holder(self.run(&script), self.folder());
        let holds = || (self.anon() >= before + (mib - 1) * MIB).then_some(());
        eventually(holds).expect("it holds its memory");
        holder
    }

    /// Anonymous memory of the group.
    pub fn anon(&self) -> u64 {
        let meter = elastic_mem::kernel::cgroup::Meter::open(&self.cgroup).expect("meter");
        meter.composition().expect("memory.stat").anon.get()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        cgroups::remove(&self.path);
    }
}

/// Processes that hold memory; killed when this is dropped.
pub struct Holder(Child, PathBuf);

impl Drop for Holder {
    fn drop(&mut self) {
        crate::common::cgroups::kill(&self.1);
        let _ = self.0.wait();
    }
}
