//! The anonymous pages of a process: where its areas are (`/proc/PID/smaps`), and which of their pages are there
//! (`/proc/PID/pagemap`, Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::{KernelError, Result};
use crate::model::Bytes;

/// The page is there.
const PRESENT: u64 = 1 << 63;
/// It belongs to a file, or to shared memory.
const OF_FILE: u64 = 1 << 61;
/// No other process has it too.
const EXCLUSIVE: u64 = 1 << 56;
/// The number of its frame; nothing without CAP_SYS_ADMIN.
const FRAME: u64 = (1 << 55) - 1;
/// Bytes of an entry.
const ENTRY: u64 = 8;
/// Entries that are read at once.
const AT_ONCE: u64 = 4096;

/// A part of the address space that has anonymous pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Its first address.
    pub start: u64,
    /// The one behind its last.
    pub end: u64,
    /// Whether some of its pages are huge.
    pub has_huge: bool,
    /// Whether it maps a file: then some of its pages are of the file, and what was touched counts both.
    pub is_of_file: bool,
    /// Its anonymous memory.
    pub anonymous: Bytes,
    /// What of its memory was touched since the kernel last forgot that (`kernel::touched`).
    pub touched: Bytes,
}

/// Bytes of a page.
pub fn size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

pub(super) fn file(pid: i32, name: &str) -> PathBuf {
    PathBuf::from("/proc").join(pid.to_string()).join(name)
}

/// The parts of the address space of a process that have anonymous pages.
///
/// # Errors
/// `Io`: it is gone, or we may not look.
pub fn areas(pid: i32) -> Result<Vec<Area>> {
    let mut found = Vec::new();
    each_area(pid, |area| {
        found.push(area);
        true
    })?;
    Ok(found)
}

/// The part of the address space of a process that begins at `start`; none if there is no such part, or it has no
/// anonymous pages.
///
/// # Errors
/// As [`areas`].
pub fn area_at(pid: i32, start: u64) -> Result<Option<Area>> {
    let mut found = None;
    each_area(pid, |area| {
        if area.start == start {
            found = Some(area);
        }
        // The kernel counts the pages of an area when it writes the area: those behind it cost nothing then.
        area.start < start
    })?;
    Ok(found)
}

fn each_area(pid: i32, visit: impl FnMut(Area) -> bool) -> Result<()> {
    let path = file(pid, "smaps");
    let file = File::open(&path).map_err(|err| KernelError::io("read", &path, err))?;
    read_areas(BufReader::new(file), visit).map_err(|err| KernelError::io("read", &path, err))
}

/// Areas with anonymous pages, in order, until `visit` wants no more.
fn read_areas(text: impl BufRead, mut visit: impl FnMut(Area) -> bool) -> std::io::Result<()> {
    let has_pages = |area: &Area| area.anonymous > Bytes::ZERO;
    let mut area: Option<Area> = None;
    for line in text.lines() {
        let line = line?;
        if let Some(next) = range(&line) {
            let before = area.replace(next).filter(has_pages);
            if before.is_some_and(|area| !visit(area)) {
                return Ok(());
            }
            continue;
        }
        let (Some(area), Some((key, value))) = (&mut area, line.split_once(':')) else {
            continue;
        };
        match key {
            "Anonymous" => area.anonymous = kilobytes(value),
            "Referenced" => area.touched = kilobytes(value),
            "AnonHugePages" => area.has_huge = kilobytes(value) > Bytes::ZERO,
            _ => {}
        }
    }
    if let Some(last) = area.filter(has_pages) {
        visit(last);
    }
    Ok(())
}

/// `     12 kB`.
fn kilobytes(text: &str) -> Bytes {
    let number = text.trim().trim_end_matches("kB").trim_end().parse::<u64>();
    Bytes::new(number.unwrap_or(0).saturating_mul(1024))
}

/// `7f00-7f80 rw-p ...`.
fn range(line: &str) -> Option<Area> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    // Permissions, offset, device, inode.
    let inode = words.nth(3);
    Some(Area {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        has_huge: false,
        is_of_file: inode.is_some_and(|inode| inode != "0"),
        anonymous: Bytes::ZERO,
        touched: Bytes::ZERO,
    })
}

/// An anonymous page that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Its address.
    pub address: u64,
    /// The number of its frame, if other processes may have it too, as they do after fork(2).
    pub shared: Option<u64>,
}

/// The pages of a process.
#[derive(Debug)]
pub struct Map {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl Map {
    /// # Errors
    /// `Io`: the process is gone, or we may not look.
    pub fn open(pid: i32) -> Result<Self> {
        let path = file(pid, "pagemap");
        let file = File::open(&path).map_err(|err| KernelError::io("read", &path, err))?;
        Ok(Self {
            path,
            file,
            buffer: vec![0; usize::try_from(AT_ONCE * ENTRY).unwrap_or_default()],
        })
    }

    /// Goes through the anonymous pages of an area that are there, in order, until `visit` wants no more.
    ///
    /// # Errors
    /// `Io`: the process is gone.
    pub fn present(&mut self, area: &Area, mut visit: impl FnMut(Page) -> bool) -> Result<()> {
        let size = size();
        let mut page = area.start / size;
        let last = area.end / size;
        while page < last {
            let wanted = usize::try_from((last - page).min(AT_ONCE) * ENTRY).unwrap_or_default();
            let part = self.buffer.get_mut(..wanted).unwrap_or_default();
            let read = self
                .file
                .read_at(part, page * ENTRY)
                .map_err(|err| KernelError::io("read", &self.path, err))?;
            let entries = part.get(..read).unwrap_or_default().chunks_exact(8);
            if entries.len() == 0 {
                break;
            }
            for entry in entries {
                let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
                let is_wanted = entry & PRESENT != 0 && entry & OF_FILE == 0;
                if is_wanted && !visit(read_page(entry, page * size)) {
                    return Ok(());
                }
                page += 1;
            }
        }
        Ok(())
    }
}

fn read_page(entry: u64, address: u64) -> Page {
    let frame = entry & FRAME;
    Page {
        address,
        shared: (entry & EXCLUSIVE == 0 && frame != 0).then_some(frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_without_anonymous_pages_are_left_out() {
        let text = "55e0-55f0 r-xp 00000000 08:01 12 /bin/x\nSize: 4 kB\nAnonymous:             0 kB\n\
                    AnonHugePages:         0 kB\nVmFlags: rd ex\n\
                    7f00-7f80 rw-p 00000000 00:00 0 [heap]\nReferenced:   12 kB\nAnonymous:          4096 kB\n\
                    AnonHugePages:      2048 kB\n\
                    7fa0-7fb0 rw-p 00000000 08:01 12 /bin/x\nAnonymous:             8 kB\nAnonHugePages: 0 kB\n";
        let mut found = Vec::new();
        read_areas(text.as_bytes(), |area| {
            found.push(area);
            true
        })
        .unwrap();
        assert_eq!(
            found,
            [
                Area {
                    start: 0x7f00,
                    end: 0x7f80,
                    has_huge: true,
                    is_of_file: false,
                    anonymous: Bytes::new(4 << 20),
                    touched: Bytes::new(12 << 10),
                },
                Area {
                    start: 0x7fa0,
                    end: 0x7fb0,
                    has_huge: false,
                    is_of_file: true,
                    anonymous: Bytes::new(8 << 10),
                    touched: Bytes::ZERO,
                },
            ]
        );
        let mut visits = 0;
        read_areas(text.as_bytes(), |_| {
            visits += 1;
            false
        })
        .unwrap();
        assert_eq!(visits, 1);
    }

    #[test]
    fn what_this_process_has_touched_is_there() {
        let size = size();
        let mut memory = vec![0_u8; usize::try_from(64 * size).unwrap()];
        memory.iter_mut().for_each(|byte| *byte = 1);
        let start = memory.as_ptr().addr() as u64;
        let pid = std::process::id().cast_signed();
        let inside = |area: &Area| area.start <= start && start < area.end;
        let area = areas(pid).unwrap().into_iter().find(inside).unwrap();
        let mut here = Vec::new();
        let mut map = Map::open(pid).unwrap();
        map.present(&area, |page| {
            here.push(page.address);
            true
        })
        .unwrap();
        let mut visits = 0;
        map.present(&area, |_| {
            visits += 1;
            visits < 3
        })
        .unwrap();
        assert_eq!(visits, 3);
        let mine = here
            .iter()
            .filter(|page| **page >= start && **page < start + 64 * size);
        assert!(mine.count() >= 63);
        assert!(areas(i32::MAX).is_err());
        assert!(Map::open(i32::MAX).is_err());
    }

    #[test]
    fn a_page_that_others_have_too_is_known_by_its_frame() {
        let shared = |entry| read_page(PRESENT | entry, 4096).shared;
        assert_eq!(shared(0x1234), Some(0x1234));
        assert_eq!(shared(0x1234 | EXCLUSIVE), None);
        // Frames are told to those only who may know them.
        assert_eq!(shared(0), None);
        assert_eq!(
            shared(0x1234 | 1 << 55),
            Some(0x1234),
            "soft-dirty is no part of it"
        );
    }
}
