//! Which of a container's pages were touched since this was asked last (`kernel::touched`).
//!
//! A part of an area is told from the others by clearing its bits and counting the area again, so that this is done while
//! the container rests, part by part: what works meanwhile is let go first.

use std::time::{Duration, Instant};

use crate::kernel::pages::{self, Area};
use crate::kernel::process::ProcessHandle;
use crate::kernel::touched;
use crate::policy::placement::Span;

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
    /// Whether all were looked at. If not, what is not among the touched ones may have been touched.
    pub(super) is_complete: bool,
    /// How long it took.
    pub(super) took: Duration,
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

/// What was touched since [`forget`]. Ends early when `is_wanted` says so.
///
/// # Errors
/// What the kernel said, if it said so of all processes.
pub(super) fn look(processes: &[i32], is_wanted: &dyn Fn() -> bool) -> Result<Found, String> {
    let begun = Instant::now();
    let mut found = Found {
        is_complete: true,
        ..Found::default()
    };
    let mut failure = None;
    for process in processes {
        if let Err(reason) = look_at(*process, is_wanted, &mut found) {
            failure = Some(reason);
        }
    }
    found.took = begun.elapsed();
    match failure {
        Some(reason) if found.spans.is_empty() => Err(reason),
        _ => Ok(found),
    }
}

fn look_at(pid: i32, is_wanted: &dyn Fn() -> bool, found: &mut Found) -> Result<(), String> {
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
        if !is_wanted() {
            found.is_complete = false;
            return Ok(());
        }
        match is_divided(area, size) {
            true => divide(&process, area, of_part, is_wanted, found).map_err(fail)?,
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

fn divide(
    process: &ProcessHandle,
    area: &Area,
    of_part: u64,
    is_wanted: &dyn Fn() -> bool,
    found: &mut Found,
) -> crate::kernel::Result<()> {
    let pid = process.pid();
    let size = pages::size();
    let parts = parts(pid, area, of_part.max(LEAST_PAGES))?;
    let before = area.touched.get();
    let mut left = before;
    let mut spans = Vec::with_capacity(parts.len());
    for (first, end) in parts {
        let part = span(pid, first, end);
        if left == 0 {
            spans.push((part, false));
            continue;
        }
        if !is_wanted() {
            found.is_complete = false;
            break;
        }
        let cleared = touched::forget_part(process, first * size, end * size).is_ok();
        let now = pages::area_at(pid, area.start)?.filter(|now| now.end == area.end);
        let Some(now) = now.filter(|_| cleared) else {
            // It is another area by now, or its memory is locked.
            spans.push((part, true));
            continue;
        };
        // More than before: it works again.
        spans.push((part, now.touched.get() != left));
        left = now.touched.get();
    }
    if left > (before / 8).max(NEW * size) && found.is_complete {
        // Pages that others have too, whose bits stay: nobody knows in which part.
        spans.iter_mut().for_each(|(_, touched)| *touched = true);
    }
    found.spans.append(&mut spans);
    Ok(())
}

/// The pages of an area in parts of so many that are there, from the first page of each to before the first of the next.
fn parts(pid: i32, area: &Area, pages_of_part: u64) -> crate::kernel::Result<Vec<(u64, u64)>> {
    // So that no huge page is divided, and no other large folio.
    let aligned = match area.has_huge {
        true => HUGE,
        false => LEAST_PAGES,
    };
    let size = pages::size();
    let mut parts: Vec<(u64, u64)> = Vec::new();
    let mut count = 0;
    pages::present(pid, area, |address| {
        let page = address / size;
        let begin = page - page % aligned;
        match parts.last_mut() {
            Some((_, end)) if count < pages_of_part || begin < *end => *end = page + 1,
            last => {
                let first = last.map_or(area.start / size, |(_, end)| {
                    *end = (*end).max(begin);
                    *end
                });
                parts.push((first, page + 1));
                count = 0;
            }
        }
        count += 1;
        true
    })?;
    if let Some((_, end)) = parts.last_mut() {
        *end = area.end / size;
    }
    Ok(parts)
}
