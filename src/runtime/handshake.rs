//! How parent, stage and init process talk to each other: see the module `launch`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use libcontainer::process::channel::{
    ChannelError, InitReceiver, InitSender, MainReceiver, MainSender, init_channel, main_channel,
};

/// Messages from the stage process to the parent; each one byte, `Pid` and `Error` with a payload.
pub(super) const ASK_MAPPING: u8 = b'm';
pub(super) const ASK_TIME_OFFSETS: u8 = b't';
pub(super) const INIT_PID: u8 = b'p';
pub(super) const ERROR: u8 = b'e';
/// The parent's answer to everything.
const GO: u8 = b'g';

/// The two directions between the parent and init.
pub(super) struct Channels {
    pub(super) to_parent: MainSender,
    pub(super) from_init: MainReceiver,
    pub(super) to_init: InitSender,
    pub(super) from_parent: InitReceiver,
}

impl Channels {
    pub(super) fn new() -> Result<Self, ChannelError> {
        let (to_parent, from_init) = main_channel()?;
        let (to_init, from_parent) = init_channel()?;
        Ok(Self {
            to_parent,
            from_init,
            to_init,
            from_parent,
        })
    }
}

/// Lets the other side go on.
pub(super) fn answer(socket: &mut UnixStream) -> std::io::Result<()> {
    socket.write_all(&[GO])
}

/// Asks the parent for something and waits until it is done.
pub(super) fn ask(socket: &mut UnixStream, what: u8) -> Result<(), String> {
    socket.write_all(&[what]).map_err(|err| err.to_string())?;
    expect_go(socket)
}

/// Waits for the parent.
pub(super) fn expect_go(socket: &mut UnixStream) -> Result<(), String> {
    let mut byte = [0_u8];
    socket
        .read_exact(&mut byte)
        .map_err(|_| "the command ended before the container was set up".to_owned())
}
