//! Changes of the limit in force of one control group, many times in its life: the files stay open.
//!
//! The limit in force is `memory.limit_in_bytes` on cgroup v1 and `memory.high` on cgroup v2. There `memory.max` stays as
//! it is: lowering it kills (cgroup-v2.rst, "Memory Interface Files").

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::meter::{V1_NO_LIMIT, find, limit_of, page_size, pread};
use super::{Cgroup, KernelError, Result, Version, read_text};
use crate::model::{Bytes, MemoryLimit};

const V1_LIMIT: &str = "memory.limit_in_bytes";
const V1_OOM: &str = "memory.oom_control";
const V2_HIGH: &str = "memory.high";
/// Longer than any number, and than what is read here.
const BUFFER: usize = 128;

/// Open files by which the limit in force is changed.
///
/// kernfs lets one writer at a time into an open file, and a write that lowers a limit can last (see [`Lever::set`]): who
/// must not wait for another one needs a lever of its own.
#[derive(Debug)]
pub struct Lever {
    memory: PathBuf,
    limit: Opened,
    /// cgroup v1 alone.
    oom: Option<Opened>,
    /// What drops page cache: `memory.force_empty`, `memory.reclaim` (Linux 5.19).
    cache: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    name: &'static str,
    file: File,
}

impl Lever {
    /// Opens the files of a control group.
    ///
    /// # Errors
    /// `Unsupported` without a memory controller; `Io` with the file that cannot be opened.
    pub fn open(cgroup: &Cgroup) -> Result<Self> {
        let memory = cgroup.memory()?;
        let open = |name| open(&memory.join(name)).map(|file| Opened { name, file });
        let cache = |name| {
            let file = OpenOptions::new().write(true).open(memory.join(name));
            file.ok().map(|file| Opened { name, file })
        };
        let (limit, oom, cache) = match cgroup.version {
            Version::V1 => (
                open(V1_LIMIT)?,
                Some(open(V1_OOM)?),
                cache("memory.force_empty"),
            ),
            Version::V2 => (open(V2_HIGH)?, None, cache("memory.reclaim")),
        };
        Ok(Self {
            memory: memory.to_path_buf(),
            limit,
            oom,
            cache,
        })
    }

    /// A lever from what [`Lever::descriptors`] gave, in another process. It cannot drop page cache.
    ///
    /// # Errors
    /// `Io` when it cannot be told which files these are.
    pub fn from_descriptors(limit: OwnedFd, oom: Option<OwnedFd>) -> Result<Self> {
        let path = own_path(limit.as_fd());
        let target =
            std::fs::read_link(&path).map_err(|err| KernelError::io("read", &path, err))?;
        let name = if oom.is_some() { V1_LIMIT } else { V2_HIGH };
        let opened = |name, fd: OwnedFd| Opened {
            name,
            file: fd.into(),
        };
        Ok(Self {
            memory: target.parent().unwrap_or(&target).to_path_buf(),
            limit: opened(name, limit),
            oom: oom.map(|fd| opened(V1_OOM, fd)),
            cache: None,
        })
    }

    /// Opens the same files again: a lever that waits for nobody who uses this one.
    ///
    /// # Errors
    /// `Io`, with `ENODEV` once the control group is gone.
    pub fn open_again(&self) -> Result<Self> {
        let again = |opened: &Opened| {
            let file = open(&own_path(opened.file.as_fd()))?;
            Ok(Opened { file, ..*opened })
        };
        Ok(Self {
            memory: self.memory.clone(),
            limit: again(&self.limit)?,
            oom: self.oom.as_ref().map(again).transpose()?,
            cache: None,
        })
    }

    /// Changes the limit in force; bytes that fill no page do not count. One system call, and no allocation.
    ///
    /// A raise takes microseconds. To lower it below what is in use takes as long as the kernel needs to drop page cache,
    /// 10 to 70 ms or more. cgroup v1 refuses with `EBUSY` when that is not enough; cgroup v2 sets `memory.high` all the
    /// same, and whoever allocates is slowed down.
    ///
    /// # Errors
    /// `Io`: `EBUSY`; `ENODEV` once the control group is gone; `EINTR` when this process was stopped meanwhile, so that
    /// what is known of the control group is old. `Unsupported` for a negative number.
    pub fn set(&self, limit: MemoryLimit) -> Result<()> {
        match limit {
            MemoryLimit::None if self.is_v1() => self.write(&self.limit, format_args!("-1")),
            MemoryLimit::None => self.write(&self.limit, format_args!("max")),
            MemoryLimit::Bytes(_) => {
                let bytes = in_force(limit).ok_or_else(|| {
                    KernelError::Unsupported(format!("{limit:?} is no limit for a control group"))
                })?;
                self.write(&self.limit, format_args!("{bytes}"))
            }
        }
    }

    /// What the kernel makes of so many bytes: whole pages.
    pub fn kept(bytes: Bytes) -> MemoryLimit {
        let limit = i64::try_from(bytes.get()).map_or(MemoryLimit::None, MemoryLimit::Bytes);
        let pages = in_force(limit).and_then(|bytes| i64::try_from(bytes).ok());
        pages.map_or(limit, MemoryLimit::Bytes)
    }

    /// The limit in force.
    ///
    /// # Errors
    /// `Io`, `Malformed`.
    pub fn get(&self) -> Result<MemoryLimit> {
        let mut buffer = [0; BUFFER];
        let text = self.read(&self.limit, &mut buffer)?;
        limit_of(text).ok_or_else(|| KernelError::Malformed {
            path: self.path(&self.limit),
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// Raises the limit in force to this one; never lowers it. Whether it was lower.
    ///
    /// # Errors
    /// As [`Lever::get`] and [`Lever::set`].
    pub fn raise(&self, to: MemoryLimit) -> Result<bool> {
        let is_lower = match (self.get()?, to) {
            (MemoryLimit::None, _) => false,
            (MemoryLimit::Bytes(_), MemoryLimit::None) => true,
            (now, to) => in_force(now) < in_force(to),
        };
        if is_lower {
            self.set(to)?;
        }
        Ok(is_lower)
    }

    /// Turns the OOM killer of cgroup v1 on or off. Without it a task that meets the limit in user space waits until
    /// there is room; system calls fail (`ENOMEM`, `EFAULT`). To turn it on while a task waits kills one: the limit is to
    /// be raised first. Nothing to do on cgroup v2.
    ///
    /// # Errors
    /// `Io`.
    pub fn set_oom_killer(&self, on: bool) -> Result<()> {
        match &self.oom {
            Some(file) => self.write(file, format_args!("{}", u8::from(!on))),
            None => Ok(()),
        }
    }

    /// Whether the OOM killer is on; always on cgroup v2.
    ///
    /// # Errors
    /// `Io`.
    pub fn has_oom_killer(&self) -> Result<bool> {
        Ok(self.oom_control(b"oom_kill_disable")? == 0)
    }

    /// Whether a task waits at the limit (cgroup v1); never on cgroup v2.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_under_oom(&self) -> Result<bool> {
        Ok(self.oom_control(b"under_oom")? != 0)
    }

    /// Drops page cache, and blocks as long as that takes.
    ///
    /// cgroup v2: at most so much of it (`memory.reclaim`), before Linux 6.11 only where there is no swap, since anonymous
    /// memory would be swapped out too; with demotion on, pages move to slower nodes instead. cgroup v1 drops all it can
    /// (`memory.force_empty`), and swaps out where there is swap. To find less than was asked for is no error.
    ///
    /// # Errors
    /// `Unsupported` when the kernel cannot; `Io`.
    pub fn drop_cache(&self, most: Bytes) -> Result<()> {
        let file = self.cache.as_ref().ok_or_else(|| {
            let memory = self.memory.display();
            KernelError::Unsupported(format!("the kernel cannot drop page cache of {memory}"))
        })?;
        let bytes = most.get();
        let done = if self.is_v1() {
            self.write(file, format_args!("0"))
        } else {
            match self.write(file, format_args!("{bytes} swappiness=0")) {
                // Before Linux 6.11. Anonymous memory is not to be swapped out for page cache.
                Err(err) if has_code(&err, libc::EINVAL) && !crate::kernel::has_swap() => {
                    self.write(file, format_args!("{bytes}"))
                }
                other => other,
            }
        };
        match done {
            Err(err) if has_code(&err, libc::EAGAIN) => Ok(()),
            other => other,
        }
    }

    /// The files of the limit in force and, on cgroup v1, of the OOM killer, for another process.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        let oom = self.oom.as_ref();
        (
            self.limit.file.as_fd(),
            oom.map(|opened| opened.file.as_fd()),
        )
    }

    /// The folder of the control group.
    pub fn folder(&self) -> &Path {
        &self.memory
    }

    fn is_v1(&self) -> bool {
        self.oom.is_some()
    }

    fn oom_control(&self, key: &[u8]) -> Result<u64> {
        let Some(file) = &self.oom else { return Ok(0) };
        let mut buffer = [0; BUFFER];
        let text = self.read(file, &mut buffer)?;
        find(text, key).ok_or_else(|| KernelError::Malformed {
            path: self.path(file),
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }

    fn read<'a>(&self, from: &Opened, buffer: &'a mut [u8; BUFFER]) -> Result<&'a [u8]> {
        let length = pread(from.file.as_fd(), buffer)
            .map_err(|err| KernelError::io("read", self.path(from), err.into()))?;
        Ok(buffer.get(..length).unwrap_or_default())
    }

    /// An interrupted write is not repeated: what was decided before is old then.
    fn write(&self, to: &Opened, value: std::fmt::Arguments<'_>) -> Result<()> {
        let fail = |err| KernelError::io(format!("write \"{value}\" to"), self.path(to), err);
        let mut text = io::Cursor::new([0; BUFFER]);
        text.write_fmt(value).map_err(fail)?;
        let length = usize::try_from(text.position()).unwrap_or(BUFFER);
        let bytes = text.get_ref().get(..length).unwrap_or_default();
        rustix::io::pwrite(&to.file, bytes, 0)
            .map(|_| ())
            .map_err(|err| fail(err.into()))
    }

    fn path(&self, opened: &Opened) -> PathBuf {
        self.memory.join(opened.name)
    }
}

impl Cgroup {
    /// The least of the limits on memory of the control groups above this one, as far as they can be seen: on cgroup v2 of
    /// `memory.high` too. None if none of them has a limit.
    pub fn limit_above(&self) -> Option<Bytes> {
        let files: &[&str] = match self.version {
            Version::V1 => &[V1_LIMIT],
            Version::V2 => &["memory.max", V2_HIGH],
        };
        let above = self.controller("memory")?.ancestors().skip(1);
        let limits = |folder: &Path| -> Result<Vec<String>> {
            let texts = files.iter().map(|name| read_text(&folder.join(name)));
            texts.collect()
        };
        above
            // The root of cgroup v2 has no limits, and outside the hierarchy there are no such files.
            .map_while(|folder| limits(folder).ok())
            .flatten()
            .filter_map(|text| match limit_of(text.as_bytes())? {
                MemoryLimit::Bytes(bytes) => u64::try_from(bytes).ok().map(Bytes::new),
                MemoryLimit::None => None,
            })
            .min()
    }
}

/// What the kernel makes of a limit: whole pages, and at most all there can be.
fn in_force(limit: MemoryLimit) -> Option<u64> {
    match limit {
        MemoryLimit::None => Some(V1_NO_LIMIT),
        MemoryLimit::Bytes(bytes) => {
            let bytes = u64::try_from(bytes).ok()?;
            Some(bytes - bytes % page_size())
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|err| KernelError::io("open", path, err))
}

/// The path by which this process can open one of its files again.
fn own_path(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn has_code(err: &KernelError, code: i32) -> bool {
    matches!(err, KernelError::Io { source, .. } if source.raw_os_error() == Some(code))
}
