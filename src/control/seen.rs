//! How a container stands, as it goes over the socket.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::status::{Areas, Cause, Counts, Status};
use crate::model::{Bytes, RunId};

/// What whoever looks after a container has seen and done so far. Sizes in bytes; absent means none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Its run.
    pub run: RunId,
    /// How long it has run.
    pub seconds: f64,
    /// What it does: `init`, `execution`, `keep-alive` or `exit`.
    pub phase: String,
    /// All memory that is charged.
    pub usage: Bytes,
    /// The most that was seen of it.
    pub peak: Bytes,
    /// The declared limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Bytes>,
    /// The limit in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Bytes>,
    /// `ceiling - grant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimable: Option<Bytes>,
    /// Memory over time.
    #[serde(flatten)]
    pub areas: Areas,
    /// How often what was decided.
    #[serde(flatten)]
    pub counts: Counts,
    /// The last change of the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
}

/// A change of the grant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastDecision {
    /// Why.
    pub cause: Cause,
    /// How long ago.
    pub seconds_ago: f64,
    /// The grant since then; none is the ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Bytes>,
}

impl Seen {
    /// Of a container that has run so long by now.
    pub fn new(now: Duration, status: Status) -> Self {
        let grant = status.grant.or(status.ceiling);
        Self {
            seconds: now.as_secs_f64(),
            phase: status.phase.as_str().to_owned(),
            usage: status.usage,
            peak: status.peak,
            ceiling: status.ceiling,
            grant,
            reclaimable: status
                .ceiling
                .zip(grant)
                .map(|(ceiling, grant)| ceiling.saturating_sub(grant)),
            areas: status.areas,
            counts: status.counts,
            last_decision: status.last.map(|last| LastDecision {
                cause: last.cause,
                seconds_ago: now.saturating_sub(last.at).as_secs_f64(),
                grant: last.grant,
            }),
            run: status.run,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::Decision;
    use crate::model::trace::Phase;

    fn status() -> Status {
        Status {
            run: "r".parse().unwrap(),
            at: Duration::from_secs(3),
            phase: Phase::KeepAlive,
            usage: Bytes::new(10),
            peak: Bytes::new(20),
            grant: Some(Bytes::new(30)),
            ceiling: Some(Bytes::new(100)),
            areas: Areas::default(),
            counts: Counts {
                lowers: 2,
                ..Counts::default()
            },
            last: Some(Decision {
                at: Duration::from_secs(1),
                grant: Some(Bytes::new(30)),
                cause: Cause::Rest,
            }),
            waited: None,
            oom_kills: 0,
        }
    }

    #[test]
    fn the_form_is_flat_and_survives_the_way_over_the_socket() {
        let seen = Seen::new(Duration::from_secs(5), status());
        let json = serde_json::to_value(&seen).unwrap();
        assert_eq!(json["phase"], "keep-alive");
        assert_eq!(json["reclaimable"], 70);
        assert_eq!(json["lowers"], 2);
        assert_eq!(json["usedByteSeconds"], 0);
        assert_eq!(json["lastDecision"]["cause"], "rest");
        assert_eq!(json["lastDecision"]["secondsAgo"], 4.0);
        assert_eq!(serde_json::from_value::<Seen>(json).unwrap(), seen);
    }

    #[test]
    fn without_a_grant_the_ceiling_is_in_force() {
        let seen = Seen::new(
            Duration::ZERO,
            Status {
                grant: None,
                last: None,
                ..status()
            },
        );
        assert_eq!(seen.grant, Some(Bytes::new(100)));
        assert_eq!(seen.reclaimable, Some(Bytes::ZERO));
        assert_eq!(seen.last_decision, None);
    }
}
