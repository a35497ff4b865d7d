//! What a tuner tells its guardian. Both are the same executable: the form has no versions.

use crate::model::MemoryLimit;

/// A kind, a flag, a key and a limit.
pub(super) const LENGTH: usize = 18;

/// A word to the guardian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// Look after the limit of a control group; its files come with the message.
    Guard {
        key: u64,
        /// What the limit is to be once nobody tunes it.
        ceiling: MemoryLimit,
        /// Whether the OOM killer is to be on then.
        oom_killer: bool,
    },
    /// Its ceiling has changed.
    Ceiling { key: u64, ceiling: MemoryLimit },
    /// Leave it alone.
    Forget { key: u64 },
}

impl Message {
    pub(super) fn encode(self) -> [u8; LENGTH] {
        let (kind, flag, key, limit) = match self {
            Self::Guard {
                key,
                ceiling,
                oom_killer,
            } => (0, oom_killer.into(), key, ceiling.as_spec()),
            Self::Ceiling { key, ceiling } => (1, 0, key, ceiling.as_spec()),
            Self::Forget { key } => (2, 0, key, 0),
        };
        let mut bytes = [kind; LENGTH];
        let rest = std::iter::once(flag)
            .chain(key.to_le_bytes())
            .chain(limit.to_le_bytes());
        for (to, from) in bytes.iter_mut().skip(1).zip(rest) {
            *to = from;
        }
        bytes
    }

    /// None if it is no message.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_first_chunk::<8>()?;
        let key = u64::from_le_bytes(*key);
        let limit = match i64::from_le_bytes(rest.try_into().ok()?) {
            -1 => MemoryLimit::None,
            bytes => MemoryLimit::Bytes(bytes),
        };
        Some(match *head {
            [0, flag] => Self::Guard {
                key,
                ceiling: limit,
                oom_killer: flag != 0,
            },
            [1, _] => Self::Ceiling {
                key,
                ceiling: limit,
            },
            [2, _] => Self::Forget { key },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were() {
        let key = u64::MAX - 1;
        for ceiling in [
            MemoryLimit::None,
            MemoryLimit::Bytes(0),
            MemoryLimit::Bytes(i64::MAX),
        ] {
            for oom_killer in [false, true] {
                let guard = Message::Guard {
                    key,
                    ceiling,
                    oom_killer,
                };
                assert_eq!(Message::decode(&guard.encode()), Some(guard));
            }
            let changed = Message::Ceiling { key, ceiling };
            assert_eq!(Message::decode(&changed.encode()), Some(changed));
        }
        let forget = Message::Forget { key };
        assert_eq!(Message::decode(&forget.encode()), Some(forget));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bytes = Message::Forget { key: 1 }.encode();
        assert_eq!(Message::decode(&bytes[..LENGTH - 1]), None);
        assert_eq!(Message::decode(&[9; LENGTH]), None);
        assert_eq!(Message::decode(&[2; LENGTH + 1]), None);
        assert_eq!(Message::decode(&[]), None);
    }
}
