//! Which pages of a container requests have touched, and when.

use std::collections::BTreeMap;

use super::Unit;
use crate::model::placement::LocalRatio;

/// Pages of one process, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Whose they are.
    pub process: i32,
    /// The number of the first page.
    pub first: u64,
    /// The number of the page behind the last one.
    pub end: u64,
}

/// When a page was touched last. From cold to hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Warmth {
    /// By no request.
    Never,
    /// By the request with this number, and by none after it.
    Since(u32),
    /// Nobody knows: the page is new, or it was not looked at.
    Unknown,
}

/// What is known of the pages of a container: spans that do not overlap, by process, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heat(BTreeMap<i32, Vec<Known>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    first: u64,
    end: u64,
    /// The number of the last request that touched it.
    last: Option<u32>,
    /// And that of the last one before.
    earlier: Option<u32>,
}

impl Known {
    /// Touched by a request.
    fn touched(self, request: u32) -> Self {
        // What was found of a request in several goes counts once.
        let earlier = match self.last == Some(request) {
            true => self.earlier,
            false => self.last,
        };
        Self {
            last: Some(request),
            earlier,
            ..self
        }
    }
}

impl Heat {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in what was found after a request: all spans that were looked at, and whether each was touched. What was not
    /// looked at any more is not there any more.
    pub fn learn(&mut self, request: u32, seen: &[(Span, bool)]) {
        let mut sorted: Vec<&(Span, bool)> = seen
            .iter()
            .filter(|(span, _)| span.first < span.end)
            .collect();
        sorted.sort_by_key(|(span, _)| (span.process, span.first));
        let mut next: BTreeMap<i32, Vec<Known>> = BTreeMap::new();
        for (span, touched) in sorted {
            let known = next.entry(span.process).or_default();
            // Two that overlap are a mistake of whoever looked; the first one counts.
            let first = known
                .last()
                .map_or(span.first, |known| known.end.max(span.first));
            let Span { process, end, .. } = *span;
            self.before(process, first, end, |piece| {
                put(
                    known,
                    match touched {
                        true => piece.touched(request),
                        false => piece,
                    },
                );
            });
        }
        self.0 = next;
    }

    /// Takes in that some spans were touched, and leaves the others as they are.
    pub fn touched(&mut self, request: u32, spans: &[Span]) {
        let mut seen: Vec<(Span, bool)> = spans.iter().map(|span| (*span, true)).collect();
        for (process, known) in &self.0 {
            for old in known {
                let mut first = old.first;
                let mut inside: Vec<&Span> = spans
                    .iter()
                    .filter(|span| {
                        span.process == *process && span.first < old.end && old.first < span.end
                    })
                    .collect();
                inside.sort_by_key(|span| span.first);
                for span in inside {
                    seen.push((
                        Span {
                            process: *process,
                            first,
                            end: span.first,
                        },
                        false,
                    ));
                    first = first.max(span.end);
                }
                seen.push((
                    Span {
                        process: *process,
                        first,
                        end: old.end,
                    },
                    false,
                ));
            }
        }
        self.learn(request, &seen);
    }

    /// What was known of some pages, piece by piece; of those of which nothing was, that nobody has touched them.
    fn before(&self, process: i32, first: u64, end: u64, mut piece: impl FnMut(Known)) {
        let mut at = first;
        let known = self.0.get(&process).map_or(&[][..], Vec::as_slice);
        let from = known.partition_point(|known| known.end <= first);
        for old in known
            .iter()
            .skip(from)
            .take_while(|known| known.first < end)
        {
            if at < old.first {
                piece(Known {
                    first: at,
                    end: old.first,
                    last: None,
                    earlier: None,
                });
            }
            let till = old.end.min(end);
            piece(Known {
                first: at.max(old.first),
                end: till,
                ..*old
            });
            at = till;
        }
        if at < end {
            piece(Known {
                first: at,
                end,
                last: None,
                earlier: None,
            });
        }
    }

    /// How warm a unit is: as its warmest page.
    pub fn of(&self, unit: &Unit) -> Warmth {
        let Some(known) = self.0.get(&unit.process) else {
            return Warmth::Unknown;
        };
        let end = unit.page.saturating_add(u64::from(unit.pages));
        let from = known.partition_point(|known| known.end <= unit.page);
        let mut at = unit.page;
        let mut warmth = Warmth::Never;
        for known in known
            .iter()
            .skip(from)
            .take_while(|known| known.first < end)
        {
            if at < known.first {
                return Warmth::Unknown;
            }
            warmth = warmth.max(known.last.map_or(Warmth::Never, Warmth::Since));
            at = known.end;
        }
        match at < end {
            true => Warmth::Unknown,
            false => warmth,
        }
    }

    /// Whether at least two requests from this one on have touched a unit, or one of its pages.
    pub fn is_touched_again(&self, unit: &Unit, since: u32) -> bool {
        let end = unit.page.saturating_add(u64::from(unit.pages));
        let known = self.0.get(&unit.process).map_or(&[][..], Vec::as_slice);
        let from = known.partition_point(|known| known.end <= unit.page);
        known
            .iter()
            .skip(from)
            .take_while(|known| known.first < end)
            .any(|known| known.earlier.is_some_and(|earlier| earlier >= since))
    }

    /// Pages that this request or a later one has touched, and those that none has.
    pub fn pages(&self, since: u32) -> (u64, u64) {
        self.0
            .values()
            .flatten()
            .fold((0, 0), |(touched, not), known| {
                let pages = known.end - known.first;
                match known.last {
                    Some(last) if last >= since => (touched + pages, not),
                    _ => (touched, not + pages),
                }
            })
    }

    /// The share of its pages that requests have touched; none where nothing is known.
    pub fn share(&self) -> Option<LocalRatio> {
        let (touched, not) = self.pages(0);
        LocalRatio::of(touched, not)
    }
}

/// Adds a span behind the others, or to the last one if it is the same.
fn put(known: &mut Vec<Known>, next: Known) {
    if next.first >= next.end {
        return;
    }
    match known.last_mut() {
        Some(last)
            if (last.end, last.last, last.earlier) == (next.first, next.last, next.earlier) =>
        {
            last.end = next.end;
        }
        _ => known.push(next),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn span(first: u64, end: u64) -> Span {
        Span {
            process: 1,
            first,
            end,
        }
    }

    fn page(page: u64) -> Unit {
        Unit {
            process: 1,
            page,
            pages: 1,
            node: 0,
        }
    }

    #[test]
    fn a_page_is_as_warm_as_its_last_touch() {
        let mut heat = Heat::default();
        assert_eq!(heat.of(&page(0)), Warmth::Unknown);
        heat.learn(1, &[(span(0, 10), true), (span(10, 40), false)]);
        heat.learn(
            2,
            &[
                (span(0, 5), false),
                (span(5, 20), true),
                (span(20, 50), false),
            ],
        );
        let found: Vec<Warmth> = [0, 7, 15, 30, 45, 50].map(|at| heat.of(&page(at))).into();
        let (first, second) = (Warmth::Since(1), Warmth::Since(2));
        assert_eq!(
            found,
            [
                first,
                second,
                second,
                Warmth::Never,
                Warmth::Never,
                Warmth::Unknown
            ]
        );
        assert_eq!(heat.pages(0), (20, 30));
        assert_eq!(heat.pages(2), (15, 35));
        assert_eq!(heat.share().unwrap().parts(), 4_000);
        // A huge page is as warm as its warmest, and unknown with one that is.
        let unit = |page, pages| Unit {
            process: 1,
            page,
            pages,
            node: 0,
        };
        assert_eq!(heat.of(&unit(0, 10)), second);
        assert_eq!(heat.of(&unit(16, 8)), second);
        assert_eq!(heat.of(&unit(45, 8)), Warmth::Unknown);
        // Another process has other pages.
        assert_eq!(
            heat.of(&Unit {
                process: 2,
                ..page(0)
            }),
            Warmth::Unknown
        );
        // What is gone is not known any more.
        heat.learn(3, &[(span(30, 50), false)]);
        assert_eq!(heat.of(&page(7)), Warmth::Unknown);
        assert!(Warmth::Never < first && first < second && second < Warmth::Unknown);
    }

    #[test]
    fn what_was_touched_can_be_added_alone() {
        let mut heat = Heat::default();
        heat.learn(1, &[(span(0, 8), true), (span(8, 20), false)]);
        heat.touched(2, &[span(4, 10), span(12, 14), span(30, 31)]);
        let warm: Vec<Warmth> = [3, 4, 9, 10, 12, 14, 19, 30]
            .map(|at| heat.of(&page(at)))
            .into();
        let (first, second) = (Warmth::Since(1), Warmth::Since(2));
        let never = Warmth::Never;
        assert_eq!(
            warm,
            [first, second, second, never, second, never, never, second]
        );
    }

    #[test]
    fn what_is_touched_again_and_again_is_told_from_what_was_touched_once() {
        let mut heat = Heat::default();
        let is_again = |heat: &Heat, at| heat.is_touched_again(&page(at), 1);
        heat.learn(1, &[(span(0, 10), true), (span(10, 40), false)]);
        assert!(!is_again(&heat, 5), "once");
        heat.learn(2, &[(span(0, 4), true), (span(4, 40), false)]);
        let seen = [3, 4, 20, 99].map(|at| is_again(&heat, at));
        assert_eq!(seen, [true, false, false, false]);
        // The same request, found out in two goes.
        heat.touched(3, &[span(20, 24)]);
        heat.learn(3, &[(span(0, 20), false), (span(20, 40), true)]);
        assert!(!is_again(&heat, 21) && is_again(&heat, 3));
        assert!(!heat.is_touched_again(&page(3), 2), "not twice since then");
        let unit = Unit {
            pages: 8,
            ..page(0)
        };
        assert!(heat.is_touched_again(&unit, 1), "as its warmest page");
    }

    proptest! {
        #[test]
        fn spans_say_of_each_page_what_was_seen_of_it(
            rounds in prop::collection::vec(prop::collection::vec((0_u64..6, any::<bool>()), 1..12), 1..5),
        ) {
            let mut heat = Heat::default();
            let mut pages: BTreeMap<u64, Option<u32>> = BTreeMap::new();
            for (round, spans) in (1_u32..).zip(&rounds) {
                let mut first = 0;
                let mut seen = Vec::new();
                let mut next = BTreeMap::new();
                for (length, touched) in spans {
                    seen.push((span(first, first + length), *touched));
                    for at in first..first + length {
                        let before = pages.get(&at).copied().flatten();
                        next.insert(at, if *touched { Some(round) } else { before });
                    }
                    // A hole between them.
                    first += length + 1;
                }
                heat.learn(round, &seen);
                pages = next;
            }
            for at in 0..80 {
                let wanted = match pages.get(&at) {
                    None => Warmth::Unknown,
                    Some(None) => Warmth::Never,
                    Some(Some(round)) => Warmth::Since(*round),
                };
                prop_assert_eq!(heat.of(&page(at)), wanted, "page {}", at);
            }
        }
    }
}
