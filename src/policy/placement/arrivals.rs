//! When the next request of a container is expected: after the shortest of its rests but a few, once there were enough and
//! as long as that was right (Shahrad et al., Serverless in the Wild, USENIX ATC 2020).

use std::time::Duration;

use super::life::LEAST_RESTS;
use crate::model::duration::text;

/// So many of a hundred rests may be shorter than is expected.
const HEAD: usize = 5;
/// For a shorter rest it is not worth it that memory goes out and comes back.
const LEAST_REST: Duration = Duration::from_secs(30);
/// What requests touch is back when so many tenths of the rest have passed.
const READY_TENTHS: u64 = 9;
/// So many of the last predictions tell whether the next one is good.
const JUDGED: usize = 20;
/// One of so many may be wrong.
const WRONG_SHARE: usize = 10;

/// When a request is expected, in time since the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// It comes later than this, in 95 of 100 cases.
    pub head: Duration,
    /// What it touches is to be local by then.
    pub ready: Duration,
    /// For that it begins to come back then.
    pub back: Duration,
}

/// When the next request is expected after these rests, oldest first, if what it touches takes so long to come back.
///
/// # Errors
/// Why that is not known, or not worth it.
pub fn expected(rests: &[Duration], returning: Duration) -> Result<Arrival, String> {
    if rests.len() < LEAST_RESTS {
        return Err(format!("{LEAST_RESTS} rests are to be seen first"));
    }
    let head = head(rests).unwrap_or_default();
    if head < LEAST_REST {
        return Err(format!(
            "not expected: {HEAD} of 100 rests can be shorter than {}",
            text(LEAST_REST)
        ));
    }
    let (judged, wrong) = judged(rests);
    if wrong * WRONG_SHARE > judged.max(WRONG_SHARE) {
        return Err(format!(
            "not expected: {wrong} of the last {judged} predictions would have been too late"
        ));
    }
    // To the second is close enough.
    let (head, ready) = (Duration::from_secs(head.as_secs()), ready(head));
    let returning = Duration::from_secs(
        returning
            .as_millis()
            .div_ceil(1000)
            .try_into()
            .unwrap_or(u64::MAX),
    );
    match ready.checked_sub(returning) {
        Some(back) if back >= head / 2 => Ok(Arrival { head, ready, back }),
        _ => Err(format!(
            "not expected: what requests touch takes {} to come back, and 95 of 100 rests are longer than {} only",
            text(returning),
            text(head)
        )),
    }
}

/// 95 of 100 rests were no shorter.
fn head(rests: &[Duration]) -> Option<Duration> {
    let mut sorted = rests.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * HEAD).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

fn ready(head: Duration) -> Duration {
    Duration::from_secs(head.as_secs() * READY_TENTHS / 10)
}

/// How many of the last rests could be predicted from those before them, and how many of these were over too soon. Whether
/// it was done does not matter, so that it is taken up again once rests are regular again.
fn judged(rests: &[Duration]) -> (usize, usize) {
    let from = rests.len().saturating_sub(JUDGED).max(LEAST_RESTS);
    let rests_before = |at: usize| rests.split_at_checked(at).map(|(before, _)| before);
    let mut found = (0, 0);
    for (at, rest) in rests.iter().enumerate().skip(from) {
        let head = rests_before(at).and_then(head);
        if let Some(head) = head.filter(|head| *head >= LEAST_REST) {
            found.0 += 1;
            found.1 += usize::from(*rest < ready(head));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seconds(rests: &[u64]) -> Vec<Duration> {
        rests
            .iter()
            .map(|rest| Duration::from_secs(*rest))
            .collect()
    }

    fn found(rests: &[u64], returning: u64) -> Result<Arrival, String> {
        expected(&seconds(rests), Duration::from_secs(returning))
    }

    #[test]
    fn a_request_is_expected_after_the_shortest_rests() {
        let arrival = |head: u64, ready, back| {
            Ok(Arrival {
                head: Duration::from_secs(head),
                ready: Duration::from_secs(ready),
                back: Duration::from_secs(back),
            })
        };
        assert_eq!(found(&[60, 70, 50, 90, 100], 3), arrival(50, 45, 42));
        // Of twenty the shortest, of forty the second.
        let many: Vec<u64> = (0..40).map(|at| 100 + at).collect();
        assert_eq!(found(&many[..20], 0), arrival(100, 90, 90));
        assert_eq!(found(&many, 1).unwrap().head, 101 * SECOND);
    }

    #[test]
    fn nothing_is_expected_of_few_short_or_irregular_rests() {
        let refused = |rests: &[u64], returning, why: &str| {
            let reason = found(rests, returning).unwrap_err();
            assert!(reason.contains(why), "{reason}");
        };
        refused(&[60; 4], 1, "5 rests");
        refused(&[60, 60, 60, 60, 29], 1, "shorter than 30s");
        refused(&[60; 9], 40, "40s to come back");
        refused(&[60; 9], 25, "25s to come back");
        assert!(found(&[60; 9], 24).is_ok(), "out for half of it");
    }

    #[test]
    fn what_was_wrong_too_often_is_expected_again_once_it_would_be_right() {
        let mut rests = vec![100; 30];
        assert!(found(&rests, 1).is_ok());
        rests.push(40);
        assert!(found(&rests, 1).is_ok(), "one of twenty");
        rests.extend([36, 30]);
        let reason = found(&rests, 1).unwrap_err();
        assert!(reason.contains("of the last 20 predictions"), "{reason}");
        rests.extend([100; 30]);
        assert!(found(&rests, 1).is_ok());
        // A few early ones of few are too many, too.
        assert!(found(&[100, 100, 100, 100, 100, 40], 1).is_ok());
        assert!(found(&[100, 100, 100, 100, 100, 80, 60], 1).is_err());
    }

    proptest! {
        #[test]
        fn memory_is_back_before_all_but_a_few_rests_end(
            rests in prop::collection::vec(0_u64..200, 0..150), returning in 0_u64..60,
        ) {
            if let Ok(arrival) = found(&rests, returning) {
                let rests = seconds(&rests);
                let sooner = rests.iter().filter(|rest| **rest < arrival.head).count();
                prop_assert!(sooner * 100 <= rests.len() * HEAD);
                prop_assert!(arrival.head >= LEAST_REST && arrival.ready < arrival.head);
                prop_assert_eq!(arrival.back + Duration::from_secs(returning), arrival.ready);
                let (judged, wrong) = judged(&rests);
                prop_assert!(wrong * WRONG_SHARE <= judged.max(WRONG_SHARE));
            }
        }

        #[test]
        fn a_request_that_keeps_to_its_time_is_always_expected(
            period in 40_u64..5000, off in prop::collection::vec(0_u64..4, 5..128),
        ) {
            let rests: Vec<u64> = off.iter().map(|off| period + off).collect();
            prop_assert!(found(&rests, period / 4).is_ok());
        }
    }
}
