//! A pair of sockets between two processes: messages that stay whole, with descriptors (unix(7), `SOCK_SEQPACKET`).
//!
//! Nothing here blocks but [`Packets::wait`].

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use super::process::adopt_fd;

/// More descriptors than any message has.
const MOST_DESCRIPTORS: usize = 4;

/// One end.
#[derive(Debug)]
pub struct Packets(OwnedFd);

/// A message.
#[derive(Debug)]
pub struct Packet {
    /// How many bytes of the buffer it fills. None: the other end is closed.
    pub length: usize,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

impl From<OwnedFd> for Packets {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Packets {
    /// Our end, and the one for another process.
    ///
    /// # Errors
    /// The kernel's reason, such as too many open files.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(ours), theirs))
    }

    /// Sends a message. It arrives though this process should end at once.
    ///
    /// # Errors
    /// `EPIPE` when the other end is closed, `EAGAIN` when nobody takes messages there.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(message)];
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &parts, control, flags, None) {
                Err(Errno::EINTR) => {}
                other => return Ok(other.map(|_| ())?),
            }
        }
    }

    /// Takes the next message; none if there is none yet.
    ///
    /// # Errors
    /// `EMSGSIZE` when it was larger than the buffer or had too many descriptors; the kernel's reason.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
        let mut control = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = loop {
            let fd = self.0.as_raw_fd();
            match recvmsg::<()>(fd, &mut parts, Some(&mut control), flags) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                // What was sent to the other end was not read there.
                Err(Errno::ECONNRESET) => {
                    return Ok(Some(Packet {
                        length: 0,
                        descriptors: Vec::new(),
                    }));
                }
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                descriptors.extend(numbers.into_iter().map(adopt_fd));
            }
        }
        if message
            .flags
            .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC)
        {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        Ok(Some(Packet {
            length: message.bytes,
            descriptors,
        }))
    }

    /// Waits until a message can be taken or the other end is closed, at most so long; without a time, for good.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn wait(&self, time: Option<Duration>) -> io::Result<()> {
        // A moment longer than asked for, so that the time is over then.
        let time = time.map_or(PollTimeout::NONE, |time| {
            let time = time.saturating_add(Duration::from_millis(1));
            PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
        });
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, time) {
            Err(Errno::EINTR) => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }

    /// Whether the other end is closed.
    pub fn is_closed(&self) -> bool {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn messages_stay_whole_and_bring_descriptors() {
        let (ours, theirs) = Packets::pair().unwrap();
        let theirs = Packets::from(theirs);
        let mut buffer = [0; 8];
        assert!(theirs.receive(&mut buffer).unwrap().is_none());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"text").unwrap();
        file.rewind().unwrap();
        ours.send(b"one", &[file.as_fd(), file.as_fd()]).unwrap();
        ours.send(b"four", &[]).unwrap();
        drop(file);
        theirs.wait(None).unwrap();
        let packet = theirs.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..packet.length], b"one");
        let mut files = packet.descriptors.into_iter().map(File::from);
        let mut text = String::new();
        files.next().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), files.count()), ("text", 1));
        let packet = theirs.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..packet.length], b"four");
        assert!(packet.descriptors.is_empty());
    }

    #[test]
    fn what_was_sent_is_read_though_the_sender_has_gone() {
        let (ours, theirs) = Packets::pair().unwrap();
        let theirs = Packets::from(theirs);
        ours.send(b"last", &[]).unwrap();
        assert!(!theirs.is_closed());
        drop(ours);
        let mut buffer = [0; 8];
        assert!(theirs.is_closed());
        assert_eq!(theirs.receive(&mut buffer).unwrap().unwrap().length, 4);
        assert_eq!(theirs.receive(&mut buffer).unwrap().unwrap().length, 0);
        let err = theirs.send(b"x", &[]).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_a_full_queue_does_not_block() {
        let (ours, theirs) = Packets::pair().unwrap();
        let theirs = Packets::from(theirs);
        ours.send(b"too long", &[]).unwrap();
        let err = theirs.receive(&mut [0; 4]).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EMSGSIZE));
        let full = (0..100_000).find_map(|_| ours.send(b"x", &[]).err());
        assert_eq!(full.unwrap().raw_os_error(), Some(libc::EAGAIN));
        let start = std::time::Instant::now();
        let (_other, quiet) = Packets::pair().unwrap();
        let wait = Duration::from_millis(5);
        Packets::from(quiet).wait(Some(wait)).unwrap();
        assert!(start.elapsed() >= wait);
    }
}
