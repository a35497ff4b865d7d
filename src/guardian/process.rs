//! The guardian's own process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tracing::Level;

use super::message::{LENGTH, Message};
use super::pulse::{self, Pulse, Side};
use super::{JSON, LOG, PATIENCE, PULSE, SOCKET, VERB};
use crate::config::LogFormat;
use crate::kernel::cgroup::Lever;
use crate::kernel::packets::{Packet, Packets};
use crate::kernel::{KernelError, chain, children, exe, process};
use crate::log::{self, Sink};
use crate::model::MemoryLimit;

/// How often it looks whether a tuner that stood still goes on.
const AGAIN: Duration = Duration::from_millis(250);

/// Whether this process is one. Asked before the command line is taken apart, which would cost more than all the rest.
pub fn is_called() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == VERB)
}

/// The guardian of another process, if it has one.
pub fn of_tuner(pid: i32) -> Option<i32> {
    process::all().into_iter().find(|candidate| {
        process::stat(*candidate).is_ok_and(|stat| stat.parent == pid && !stat.has_ended())
            && process::command_line(*candidate)
                .is_ok_and(|words| words.get(1).is_some_and(|word| word == VERB))
    })
}

/// Guards until the tuner has ended.
///
/// # Errors
/// What was missing: only a tuner can start a guardian.
pub fn main() -> Result<(), String> {
    let format = std::env::args().nth(2);
    children::close_inherited(if format.is_some() { 3 } else { 2 });
    let given = |what: &str, index| {
        children::take_given(index).map_err(|err| {
            let reason = crate::kernel::reason(&err);
            format!("{what} of the process that tunes memory, which alone can start a guardian: {reason}")
        })
    };
    let socket = Packets::from(given("the socket", SOCKET)?);
    let pulse = Pulse::from(given("the sign of life", PULSE)?);
    if let Some(format) = format {
        start_log(given("the log", LOG)?, &format);
    }
    if let Err(err) = exe::give_up_unused_memory() {
        tracing::debug!("memory not given up: {}", chain(&err));
    }
    guard(&socket, &pulse)
}

fn start_log(file: OwnedFd, format: &str) {
    log::install(Arc::new(Sink {
        format: match format {
            JSON => LogFormat::Json,
            _ => LogFormat::Text,
        },
        file: Some(File::from(file)),
        level: Level::INFO,
    }));
}

fn guard(socket: &Packets, pulse: &Pulse) -> Result<(), String> {
    let mut wards = Wards::default();
    loop {
        let now = pulse::now();
        let wait = wards.wait(now, pulse.last(Side::Tuner, now));
        // If it cannot wait, it looks at once: a guardian that ends guards nothing.
        let _ = socket.wait(wait);
        pulse.leave(Side::Guardian, pulse::now());
        let mut buffer = [0; LENGTH];
        loop {
            match socket.receive(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Packet { length: 0, .. })) => {
                    wards.give_back("the tuner of memory has ended");
                    return Ok(());
                }
                Ok(Some(packet)) => {
                    let bytes = buffer.get(..packet.length).unwrap_or_default();
                    if let Err(reason) = wards.take(bytes, packet.descriptors) {
                        wards.give_back("the guardian of memory did not understand its tuner");
                        return Err(reason);
                    }
                }
                Err(err) => {
                    wards.give_back("the guardian of memory cannot hear its tuner");
                    return Err(crate::kernel::reason(&err));
                }
            }
        }
        let now = pulse::now();
        wards.look(now, || pulse.last(Side::Tuner, now));
    }
}

/// What is guarded.
#[derive(Debug, Default)]
struct Wards {
    wards: Vec<Ward>,
    /// The tuner stands still.
    alone: bool,
}

#[derive(Debug)]
struct Ward {
    key: u64,
    lever: Lever,
    ceiling: MemoryLimit,
    oom_killer: bool,
}

impl Wards {
    /// How long nothing has to be done, if no message comes; none means for good.
    fn wait(&self, now: Duration, beat: Duration) -> Option<Duration> {
        match (self.wards.is_empty(), self.alone) {
            (true, _) => None,
            (false, true) => Some(AGAIN),
            (false, false) => Some(beat.saturating_add(PATIENCE).saturating_sub(now)),
        }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// What is wrong with it.
    fn take(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let message = Message::decode(bytes).ok_or("a message of no known form")?;
        match message {
            Message::Guard {
                key,
                ceiling,
                oom_killer,
            } => {
                let mut descriptors = descriptors.into_iter();
                let limit = descriptors.next().ok_or("a limit without its file")?;
                let lever = Lever::from_descriptors(limit, descriptors.next())
                    .map_err(|err| chain(&err))?;
                self.wards.retain(|ward| ward.key != key);
                self.wards.push(Ward {
                    key,
                    lever,
                    ceiling,
                    oom_killer,
                });
            }
            Message::Ceiling { key, ceiling } => {
                let known = self.wards.iter_mut().find(|ward| ward.key == key);
                if let Some(ward) = known {
                    ward.ceiling = ceiling;
                }
            }
            Message::Forget { key } => self.wards.retain(|ward| ward.key != key),
        }
        Ok(())
    }

    /// Looks whether the tuner lives.
    fn look(&mut self, now: Duration, beat: impl Fn() -> Duration) {
        if self.wards.is_empty() {
            self.alone = false;
            return;
        }
        // Read twice: the first may have been half of an old and half of a new one.
        let is_silent = || now.saturating_sub(beat()) >= PATIENCE;
        let is_silent = is_silent() && is_silent();
        match (self.alone, is_silent) {
            (false, true) => self.give_back("the tuner of memory stands still"),
            // It may have been stopped between what it decided and what it wrote.
            (true, false) => self.give_back("the tuner of memory had stood still, and goes on"),
            _ => {}
        }
        self.alone = is_silent;
    }

    /// Raises all that is below its ceiling, then turns the OOM killers on. In this order: a killer that is turned on
    /// while a task waits at the limit kills it.
    fn give_back(&mut self, why: &str) {
        let mut given_back = 0_usize;
        let mut gone = Vec::new();
        for ward in &self.wards {
            match patiently(|| ward.lever.raise(ward.ceiling)) {
                Ok(was_lower) => given_back += usize::from(was_lower),
                Err(err) => {
                    gone.push(ward.key);
                    tell(&err, "a limit was not given back", ward);
                }
            }
        }
        for ward in &self.wards {
            // A task that cannot go on is better off waiting for somebody who can raise the limit.
            if !ward.oom_killer || gone.contains(&ward.key) {
                continue;
            }
            if let Err(err) = patiently(|| ward.lever.set_oom_killer(true)) {
                tell(&err, "an OOM killer was not turned on", ward);
            }
        }
        if given_back > 0 {
            tracing::warn!("{why}: {given_back} limits are at their ceilings again");
        }
    }
}

/// Tries again what a stop of this process has interrupted.
fn patiently<T>(mut work: impl FnMut() -> Result<T, KernelError>) -> Result<T, KernelError> {
    loop {
        match work() {
            Err(err) if err.is_interrupted() => {}
            other => return other,
        }
    }
}

/// A control group that was removed meanwhile needs no limit.
fn tell(err: &KernelError, what: &str, ward: &Ward) {
    if !err.is_gone() {
        let folder = ward.lever.folder().display();
        tracing::error!(%folder, "{what}: {}", chain(err));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::{AsFd, BorrowedFd};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LOW: i64 = 16_777_216;
    const HIGH: i64 = 67_108_864;

    /// Files in place of those of a control group of cgroup v1. All values have one length, since a file is longer than
    /// what is written over its begin.
    struct Files {
        folder: tempfile::TempDir,
        limit: OwnedFd,
        oom: OwnedFd,
    }

    impl Files {
        fn new(limit: i64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let open = |name: &str, text: String| {
                let path = folder.path().join(name);
                fs::write(&path, text).unwrap();
                let file = File::options().read(true).write(true).open(path);
                OwnedFd::from(file.unwrap())
            };
            Self {
                limit: open("limit", format!("{limit}\n")),
                oom: open("oom", "1".to_owned()),
                folder,
            }
        }

        fn descriptors(&self) -> Vec<OwnedFd> {
            let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
            vec![copy(self.limit.as_fd()), copy(self.oom.as_fd())]
        }

        fn read(&self, name: &str) -> String {
            let text = fs::read_to_string(self.folder.path().join(name)).unwrap();
            text.trim_end().to_owned()
        }

        fn lower(&self) {
            fs::write(self.folder.path().join("limit"), format!("{LOW}\n")).unwrap();
            fs::write(self.folder.path().join("oom"), "1").unwrap();
        }
    }

    fn guard(key: u64, oom_killer: bool) -> Message {
        Message::Guard {
            key,
            ceiling: MemoryLimit::Bytes(HIGH),
            oom_killer,
        }
    }

    fn guarding(files: &Files) -> Wards {
        let mut wards = Wards::default();
        wards
            .take(&guard(1, true).encode(), files.descriptors())
            .unwrap();
        wards
    }

    #[test]
    fn what_is_below_its_ceiling_is_raised_and_nothing_is_lowered() {
        let (low, high, other) = (Files::new(LOW), Files::new(99_999_744), Files::new(LOW));
        let mut wards = guarding(&low);
        wards
            .take(&guard(2, false).encode(), high.descriptors())
            .unwrap();
        wards
            .take(&guard(3, true).encode(), other.descriptors())
            .unwrap();
        let forget = Message::Forget { key: 3 };
        wards.take(&forget.encode(), Vec::new()).unwrap();
        wards.give_back("test");
        assert_eq!(low.read("limit"), HIGH.to_string());
        assert_eq!(low.read("oom"), "0");
        assert_eq!(high.read("limit"), "99999744");
        assert_eq!(high.read("oom"), "1", "it was off before us");
        assert_eq!(other.read("limit"), LOW.to_string(), "forgotten");
        assert_eq!(other.read("oom"), "1");
    }

    #[test]
    fn the_last_ceiling_counts() {
        let files = Files::new(LOW);
        let mut wards = guarding(&files);
        let ceiling = MemoryLimit::Bytes(33_554_432);
        for key in [1, 7] {
            let changed = Message::Ceiling { key, ceiling };
            wards.take(&changed.encode(), Vec::new()).unwrap();
        }
        wards.give_back("test");
        assert_eq!(files.read("limit"), "33554432");
    }

    #[test]
    fn a_tuner_that_is_silent_for_a_second_stands_still() {
        let files = Files::new(LOW);
        let mut wards = guarding(&files);
        let beat = 10 * SECOND;
        let almost = beat + PATIENCE - Duration::from_millis(1);
        assert_eq!(
            wards.wait(almost, beat),
            Some(Duration::from_millis(1)),
            "it sleeps until then"
        );
        wards.look(almost, || beat);
        assert_eq!(files.read("limit"), LOW.to_string());
        wards.look(beat + PATIENCE, || beat);
        assert_eq!(files.read("limit"), HIGH.to_string());
        assert_eq!(wards.wait(beat + PATIENCE, beat), Some(AGAIN));
        // Once for each time.
        files.lower();
        wards.look(beat + 2 * PATIENCE, || beat);
        assert_eq!(files.read("limit"), LOW.to_string());
        // What it wrote as the first thing after that is old.
        let beat = 20 * SECOND;
        wards.look(beat, || beat);
        assert_eq!(files.read("limit"), HIGH.to_string());
        assert_eq!(files.read("oom"), "0");
        files.lower();
        wards.look(beat + SECOND / 2, || beat);
        assert_eq!(files.read("limit"), LOW.to_string(), "it lives");
        wards.look(beat + SECOND, || beat);
        assert_eq!(files.read("limit"), HIGH.to_string());
    }

    #[test]
    fn a_sign_of_life_that_is_half_written_is_looked_at_again() {
        let files = Files::new(LOW);
        let mut wards = guarding(&files);
        let beats = std::cell::Cell::new(0);
        wards.look(10 * SECOND, || {
            beats.set(beats.get() + 1);
            if beats.get() == 1 {
                SECOND
            } else {
                10 * SECOND
            }
        });
        assert_eq!(files.read("limit"), LOW.to_string());
    }

    #[test]
    fn without_anything_to_guard_it_sleeps() {
        let files = Files::new(LOW);
        let mut wards = guarding(&files);
        let forget = Message::Forget { key: 1 };
        wards.take(&forget.encode(), Vec::new()).unwrap();
        assert_eq!(wards.wait(5 * SECOND, SECOND), None);
        wards.look(5 * SECOND, || SECOND);
        assert!(!wards.alone);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut wards = Wards::default();
        assert!(wards.take(&[7; LENGTH], Vec::new()).is_err());
        assert!(wards.take(&guard(1, true).encode(), Vec::new()).is_err());
        assert!(wards.wards.is_empty());
    }

    #[test]
    fn the_end_of_the_tuner_ends_it_once_all_is_given_back() {
        let files = Files::new(LOW);
        let (ours, theirs) = Packets::pair().unwrap();
        let pulse = Pulse::new().unwrap();
        let descriptors = files.descriptors();
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        pulse.leave(Side::Tuner, pulse::now());
        ours.send(&guard(1, true).encode(), &borrowed).unwrap();
        drop(ours);
        super::guard(&Packets::from(theirs), &pulse).unwrap();
        assert_eq!(files.read("limit"), HIGH.to_string());
        assert_eq!(files.read("oom"), "0");
    }

    #[test]
    fn one_that_does_not_understand_gives_back_and_ends() {
        let files = Files::new(LOW);
        let (ours, theirs) = Packets::pair().unwrap();
        let pulse = Pulse::new().unwrap();
        let descriptors = files.descriptors();
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        pulse.leave(Side::Tuner, pulse::now());
        ours.send(&guard(1, true).encode(), &borrowed).unwrap();
        ours.send(b"nonsense", &[]).unwrap();
        assert!(super::guard(&Packets::from(theirs), &pulse).is_err());
        assert_eq!(files.read("limit"), HIGH.to_string());
    }
}
