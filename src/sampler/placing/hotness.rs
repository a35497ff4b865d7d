//! Which of a container's pages were touched since this was asked last (`kernel::touched`).
//!
//! A part of an area is told from the others by clearing its bits and counting the area again, so that this is done while
//! the container rests, part by part: what works meanwhile is let go first. Parts that were alike the last time are asked
//! about together; if they are not alike any more, each for itself the next time.

use std::time::{Duration, Instant};

use crate::kernel::pages::{self, Area};
use crate::kernel::process::ProcessHandle;
use crate::kernel::touched;
use crate::policy::placement::{Heat, Span, Unit, Warmth};

/// A process is divided into about so many parts.
const PARTS: u64 = 256;
/// The smallest part: what large folios of anonymous memory mostly have, which are better left whole.
const LEAST_PAGES: u64 = 16;
/// A smaller area is not divided.
const WHOLE: u64 = 2 * LEAST_PAGES;
/// Of an area of which this share was touched, in eighths, all counts as touched.
const MOST_EIGHTHS: u64 = 7;
/// Pages of a huge page.
const HUGE: u64 = 512;
/// So few pages keep their bits because the kernel has not put them onto its lists yet: they are new.
const NEW: u64 = 64;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// All spans that were looked at, and whether each was touched.
    pub(super) spans: Vec<(Span, bool)>,
    /// Spans whose parts are not alike: they are to be asked about one by one the next time.
    pub(super) mixed: Vec<Span>,
    /// Whether all were looked at. If not, what is not among the touched ones may have been touched.
    pub(super) is_complete: bool,
    /// How long it took.
    pub(super) took: Duration,
}

/// What is known from before.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Which pages are hot.
    pub(super) heat: &'a Heat,
    /// The request after which that was found out last.
    pub(super) request: u32,
    /// Spans whose parts were not alike then.
    pub(super) mixed: &'a [Span],
    /// Whether it is to go on.
    pub(super) is_wanted: &'a dyn Fn() -> bool,
}

impl Known<'_> {
    /// Whether a part was touched the last time; none if that is not known, or not of each of its pages.
    fn was_touched(&self, process: i32, part: &Part) -> Option<bool> {
        let is_mixed =
            |span: &Span| span.process == process && span.first < part.end && part.first < span.end;
        if self.mixed.iter().any(is_mixed) {
            return None;
        }
        let warmth = self.heat.of(&Unit {
            process,
            page: part.first,
            pages: u32::try_from(part.end - part.first).ok()?,
            node: 0,
        });
        match warmth {
            Warmth::Unknown => None,
            warmth => Some(warmth == Warmth::Since(self.request)),
        }
    }
}

/// Has the kernel forget what was touched until now.
///
/// # Errors
/// What the kernel said, if it said so of all processes.
pub(super) fn forget(processes: &[i32]) -> Result<(), String> {
    let mut failure = None;
    let mut done = false;
    for process in processes {
        match touched::forget(*process) {
            Ok(()) => done = true,
            // It may have ended.
            Err(err) => failure = Some(crate::runtime::chain(&err)),
        }
    }
    match failure {
        Some(reason) if !done => Err(reason),
        _ => Ok(()),
    }
}

/// What was touched since [`forget`].
///
/// # Errors
/// What the kernel said, if it said so of all processes.
pub(super) fn look(processes: &[i32], known: &Known<'_>) -> Result<Found, String> {
    let begun = Instant::now();
    let mut found = Found {
        is_complete: true,
        ..Found::default()
    };
    let mut failure = None;
    for process in processes {
        if let Err(reason) = look_at(*process, known, &mut found) {
            failure = Some(reason);
        }
    }
    found.took = begun.elapsed();
    match failure {
        Some(reason) if found.spans.is_empty() => Err(reason),
        _ => Ok(found),
    }
}

fn look_at(pid: i32, known: &Known<'_>, found: &mut Found) -> Result<(), String> {
    let fail = |err| crate::runtime::chain(&err);
    let process = ProcessHandle::of(pid).map_err(fail)?;
    let areas = pages::areas(pid).map_err(fail)?;
    let size = pages::size();
    let of_part: u64 = areas
        .iter()
        .filter(|area| is_divided(area, size))
        .map(|area| area.anonymous.get() / size / PARTS)
        .sum();
    for area in &areas {
        if !(known.is_wanted)() {
            found.is_complete = false;
            return Ok(());
        }
        match is_divided(area, size) {
            true => divide(&process, area, of_part, known, found).map_err(fail)?,
            false => {
                let span = span(pid, area.start / size, area.end / size);
                found.spans.push((span, area.touched.get() > 0));
            }
        }
    }
    Ok(())
}

fn span(process: i32, first: u64, end: u64) -> Span {
    Span {
        process,
        first,
        end,
    }
}

/// Whether some of it was touched and some was not, and it is worth finding out what.
fn is_divided(area: &Area, size: u64) -> bool {
    let (touched, all) = (area.touched.get(), area.anonymous.get());
    touched > 0
        && !area.is_of_file
        && all / size >= WHOLE
        && touched.saturating_mul(8) < all.saturating_mul(MOST_EIGHTHS)
}

/// Pages of an area, some of which are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: u64,
    end: u64,
    /// How many are there.
    pages: u64,
    /// Whether it was touched the last time, if it is several that were alike.
    together: Option<bool>,
}

fn divide(
    process: &ProcessHandle,
    area: &Area,
    of_part: u64,
    known: &Known<'_>,
    found: &mut Found,
) -> crate::kernel::Result<()> {
    let pid = process.pid();
    let size = pages::size();
    let parts = parts(pid, area, of_part.max(LEAST_PAGES))?;
    let before = area.touched.get();
    let mut left = before;
    let mut spans = Vec::with_capacity(parts.len());
    for part in together(&parts, |part| known.was_touched(pid, part)) {
        let here = span(pid, part.first, part.end);
        if left == 0 {
            spans.push((here, false));
            continue;
        }
        if !(known.is_wanted)() {
            found.is_complete = false;
            break;
        }
        let cleared = touched::forget_part(process, part.first * size, part.end * size).is_ok();
        let now = pages::area_at(pid, area.start)?.filter(|now| now.end == area.end);
        let Some(now) = now.filter(|_| cleared) else {
            // It is another area by now, or its memory is locked.
            spans.push((here, true));
            continue;
        };
        let now = now.touched.get();
        // More than before: it works again.
        let less = left.checked_sub(now).map(|less| less / size);
        left = now;
        let (is_touched, is_mixed) = judged(&part, less);
        spans.push((here, is_touched));
        found.mixed.extend(is_mixed.then_some(here));
    }
    if left > (before / 8).max(NEW * size) && found.is_complete {
        // Pages that others have too, whose bits stay: nobody knows in which part.
        spans.iter_mut().for_each(|(_, touched)| *touched = true);
    }
    found.spans.append(&mut spans);
    Ok(())
}

/// Whether a part counts as touched whose area was counted by so many pages less once it was cleared, none if by more, and
/// whether that is to be found out of each of its parts.
fn judged(part: &Part, less: Option<u64>) -> (bool, bool) {
    match (less, part.together) {
        (None, _) => (true, false),
        (Some(less), None) => (less > 0, false),
        (Some(0), Some(_)) => (false, false),
        (Some(less), Some(_)) if less * 8 >= part.pages * MOST_EIGHTHS => (true, false),
        // Most likely as the last time.
        (Some(less), Some(was_touched)) => (was_touched || less * 2 >= part.pages, true),
    }
}

/// Parts one after the other that were alike the last time as one.
fn together(parts: &[Part], was_touched: impl Fn(&Part) -> Option<bool>) -> Vec<Part> {
    let mut found: Vec<Part> = Vec::new();
    let mut before = None;
    for part in parts {
        let now = was_touched(part);
        match found.last_mut() {
            Some(last) if now.is_some() && now == before => {
                last.end = part.end;
                last.pages += part.pages;
                last.together = now;
            }
            _ => found.push(*part),
        }
        before = now;
    }
    found
}

/// The pages of an area in parts of so many that are there, from the first page of each to before the first of the next.
fn parts(pid: i32, area: &Area, pages_of_part: u64) -> crate::kernel::Result<Vec<Part>> {
    // So that no huge page is divided, and no other large folio.
    let aligned = match area.has_huge {
        true => HUGE,
        false => LEAST_PAGES,
    };
    let size = pages::size();
    let mut parts: Vec<Part> = Vec::new();
    pages::Map::open(pid)?.present(area, |page| {
        let page = page.address / size;
        let begin = page - page % aligned;
        match parts.last_mut() {
            Some(part) if part.pages < pages_of_part || begin < part.end => {
                part.end = page + 1;
                part.pages += 1;
            }
            last => {
                let first = last.map_or(area.start / size, |part| {
                    part.end = part.end.max(begin);
                    part.end
                });
                parts.push(Part {
                    first,
                    end: page + 1,
                    pages: 1,
                    together: None,
                });
            }
        }
        true
    })?;
    if let Some(part) = parts.last_mut() {
        part.end = area.end / size;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, end: u64) -> Part {
        Part {
            first,
            end,
            pages: end - first,
            together: None,
        }
    }

    #[test]
    fn parts_that_were_alike_are_asked_about_together() {
        let parts: Vec<Part> = (0..6).map(|at| part(at * 16, at * 16 + 16)).collect();
        let touched = [Some(true), Some(true), Some(false), None, None, Some(false)];
        let was = |part: &Part| touched[usize::try_from(part.first / 16).unwrap()];
        let found: Vec<_> = together(&parts, was)
            .iter()
            .map(|part| (part.first, part.end, part.pages, part.together))
            .collect();
        assert_eq!(
            found,
            [
                (0, 32, 32, Some(true)),
                (32, 48, 16, None),
                (48, 64, 16, None),
                (64, 80, 16, None),
                (80, 96, 16, None),
            ]
        );
    }

    #[test]
    fn what_is_not_alike_any_more_is_divided_the_next_time() {
        let alone = part(0, 16);
        assert_eq!(judged(&alone, Some(0)), (false, false));
        assert_eq!(judged(&alone, Some(1)), (true, false), "one page is enough");
        assert_eq!(judged(&alone, None), (true, false), "it works again");
        let of = |was, less| {
            let several = Part {
                together: Some(was),
                ..part(0, 80)
            };
            judged(&several, Some(less))
        };
        for was in [true, false] {
            assert_eq!(of(was, 0), (false, false));
            assert_eq!(of(was, 78), (true, false));
        }
        assert_eq!(of(true, 5), (true, true));
        assert_eq!(of(false, 5), (false, true));
        assert_eq!(of(false, 60), (true, true));
    }

    #[test]
    fn a_process_is_looked_at_part_by_part_and_let_go() {
        if touched::can_tell().is_err() {
            return;
        }
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = child.id().cast_signed();
        let sleeps = || crate::kernel::process::stat(process).is_ok_and(|stat| stat.state == 'S');
        while !sleeps() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let heat = Heat::default();
        let known = |is_wanted| Known {
            heat: &heat,
            request: 0,
            mixed: &[],
            is_wanted,
        };
        forget(&[process]).unwrap();
        let found = look(&[process], &known(&|| true)).unwrap();
        let left = look(&[process], &known(&|| false)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.is_complete && !found.spans.is_empty());
        assert!(!left.is_complete && left.spans.is_empty());
        assert!(look(&[process], &known(&|| true)).is_err(), "it is gone");
        assert!(forget(&[process]).is_err());
    }
}
