//! Looks for the anonymous pages of a container and the nodes that they lie on.

use std::collections::HashSet;

use crate::kernel::{numa, pages};
use crate::policy::placement::Unit;

/// Addresses that the kernel is asked about at once.
const ASKED: usize = 16_384;
/// Pages of a huge page.
pub(super) const HUGE: usize = 512;

/// A search for pages.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// So many pages are passed by first.
    pub(super) skip: u64,
    /// And so many are looked at.
    pub(super) room: u64,
    pub(super) units: Vec<Unit>,
    /// Why a process could not be looked at; it may have ended.
    pub(super) failure: Option<String>,
    /// Frames of pages that several processes may have: each is looked at once. Those of other parts do not matter, for
    /// each part gets the ratio by itself.
    shared: HashSet<u64>,
}

impl Search {
    pub(super) fn new(skip: u64, room: u64) -> Self {
        Self {
            skip,
            room,
            ..Self::default()
        }
    }

    /// The anonymous pages of a process; those that may be a huge page together as one.
    pub(super) fn process(&mut self, process: i32) {
        if self.room > 0
            && let Err(reason) = self.look_at(process)
        {
            self.failure = Some(reason);
        }
    }

    fn look_at(&mut self, process: i32) -> Result<(), String> {
        let fail = |err| crate::runtime::chain(&err);
        let areas = pages::areas(process).map_err(fail)?;
        let mut map = pages::Map::open(process).map_err(fail)?;
        let (mut here, mut may_be_huge) = (Vec::new(), Vec::new());
        for area in &areas {
            map.present(area, |page| {
                if let Some(left) = self.skip.checked_sub(1) {
                    self.skip = left;
                    return true;
                }
                let Some(left) = self.room.checked_sub(1) else {
                    return false;
                };
                self.room = left;
                // What a child has of its parent is there once.
                if page.shared.is_none_or(|frame| self.shared.insert(frame)) {
                    here.push(page.address);
                    may_be_huge.push(area.has_huge);
                }
                left > 0
            })
            .map_err(fail)?;
            if self.room == 0 {
                break;
            }
        }
        // Of all areas at once: there can be thousands of them with a page each.
        let size = pages::size();
        let mut found = Vec::with_capacity(here.len());
        for (part, huge) in here.chunks(ASKED).zip(may_be_huge.chunks(ASKED)) {
            let nodes = numa::nodes_of(process, part).map_err(|err| crate::kernel::reason(&err))?;
            for ((address, huge), placed) in part.iter().zip(huge).zip(nodes) {
                if let numa::Placed::On(node) = placed {
                    let page = address / size;
                    let unit = Unit {
                        process,
                        page,
                        pages: 1,
                        node,
                    };
                    found.push((unit, *huge));
                }
            }
        }
        for alike in found.chunk_by(|(_, a), (_, b)| a == b) {
            let pages: Vec<Unit> = alike.iter().map(|(unit, _)| *unit).collect();
            match alike.first() {
                Some((_, true)) => self.units.extend(joined(&pages)),
                _ => self.units.extend(pages),
            }
        }
        Ok(())
    }
}

/// Pages that are as many as a huge page has, lie as one does, and on one node, are one unit: they may be one, and then
/// none of them can be moved alone.
fn joined(pages: &[Unit]) -> Vec<Unit> {
    let huge = HUGE as u64;
    let mut units = Vec::new();
    for block in pages.chunk_by(|a, b| a.page / huge == b.page / huge && a.node == b.node) {
        match block.first() {
            Some(first) if block.len() == HUGE => units.push(Unit {
                pages: u32::try_from(HUGE).unwrap_or(1),
                ..*first
            }),
            _ => units.extend_from_slice(block),
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_may_be_a_huge_page_is_one_unit() {
        let page = |page, node| Unit {
            process: 1,
            page,
            pages: 1,
            node,
        };
        let mut pages: Vec<Unit> = (510..1536).map(|at| page(at, 0)).collect();
        let units = joined(&pages);
        assert_eq!(units.len(), 4);
        let huge: Vec<u64> = units
            .iter()
            .filter(|unit| unit.pages == 512)
            .map(|u| u.page)
            .collect();
        assert_eq!(huge, [512, 1024]);
        // One page of it elsewhere, and it is none.
        pages[600].node = 1;
        assert_eq!(
            joined(&pages)
                .iter()
                .filter(|unit| unit.pages == 512)
                .count(),
            1
        );
        // One missing too.
        pages.remove(100);
        assert!(joined(&pages).iter().all(|unit| unit.pages == 1));
    }

    #[test]
    fn a_large_process_is_searched_part_by_part() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = child.id().cast_signed();
        let sleeps = || crate::kernel::process::stat(process).is_ok_and(|stat| stat.state == 'S');
        while !sleeps() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let part = |skip| {
            let mut search = Search::new(skip, 8);
            search.process(process);
            assert_eq!((search.room, search.failure), (0, None));
            search.units
        };
        let (first, second) = (part(0), part(8));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!first.is_empty() && !second.is_empty());
        assert!(
            second.iter().all(|unit| !first.contains(unit)),
            "{first:?} {second:?}"
        );
    }

    #[test]
    fn a_page_that_several_processes_have_is_found_once() {
        let own = std::process::id().cast_signed();
        let child = crate::kernel::process::fork(|| {
            std::thread::sleep(Duration::from_secs(60));
            0
        })
        .unwrap();
        let found = |processes: &[i32]| {
            let mut search = Search::new(0, 1_000_000);
            processes.iter().for_each(|pid| search.process(*pid));
            assert_eq!(search.failure, None);
            (search.units.len(), search.shared.len())
        };
        let (apart, seen) = found(&[child.as_raw()]);
        let (own_pages, _) = found(&[own]);
        let (together, _) = found(&[own, child.as_raw()]);
        crate::kernel::process::signal_pid(child.as_raw(), libc::SIGKILL).unwrap();
        nix::sys::wait::waitpid(child, None).unwrap();
        // Frames are told to those only who may know them.
        if seen > 0 {
            assert!(
                together < own_pages + apart / 2,
                "{own_pages} {apart} {together}"
            );
        }
        assert!(together > 0);
    }
}
