//! The pages of a container, and where they lie.

use super::HUGE;
use crate::kernel::{numa, pages};
use crate::policy::placement::Unit;

/// Addresses that the kernel is asked about at once.
const ASKED: usize = 16_384;

/// A search for pages.
pub(super) struct Search {
    /// So many pages are passed by first.
    pub(super) skip: u64,
    /// And so many are looked at.
    pub(super) room: u64,
    pub(super) units: Vec<Unit>,
    /// Why a process could not be looked at; it may have ended.
    pub(super) failure: Option<String>,
}

impl Search {
    /// The anonymous pages of a process; those that may be a huge page together as one.
    pub(super) fn process(&mut self, process: i32) {
        let areas = pages::areas(process).map_err(|err| crate::runtime::chain(&err));
        let done =
            areas.and_then(|areas| areas.iter().try_for_each(|area| self.area(process, area)));
        if let Err(reason) = done {
            self.failure = Some(reason);
        }
    }

    fn area(&mut self, process: i32, area: &pages::Area) -> Result<(), String> {
        if self.room == 0 {
            return Ok(());
        }
        let size = pages::size();
        let mut here = Vec::new();
        pages::present(process, area, |address| {
            if let Some(left) = self.skip.checked_sub(1) {
                self.skip = left;
            } else if let Some(left) = self.room.checked_sub(1) {
                self.room = left;
                here.push(address);
            }
            self.room > 0
        })
        .map_err(|err| crate::runtime::chain(&err))?;
        let mut found = Vec::with_capacity(here.len());
        for part in here.chunks(ASKED) {
            let nodes = numa::nodes_of(process, part).map_err(|err| crate::kernel::reason(&err))?;
            for (address, placed) in part.iter().zip(nodes) {
                if let numa::Placed::On(node) = placed {
                    found.push(Unit {
                        process,
                        page: address / size,
                        pages: 1,
                        node,
                    });
                }
            }
        }
        if area.has_huge {
            found = joined(&found);
        }
        self.units.append(&mut found);
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
            let mut search = Search {
                skip,
                room: 8,
                units: Vec::new(),
                failure: None,
            };
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
}
