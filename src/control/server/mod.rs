//! Answers at the sockets of containers, without a thread: whoever owns a [`Server`] waits until it is readable and gives
//! it a [`Server::turn`]. The shim does so in its event loop, the monitor while it waits for the end of its container.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use serde_json::{Map, Value, json};

use super::SOCKET;
use super::error::{ControlError, Result};
use super::message::{Answer, LONGEST, Request};
use super::record::Folder;
use super::seen::Seen;
use crate::kernel::wait::Waker;
use crate::kernel::{KernelError, socket};
use crate::model::ClassName;
use crate::model::status::Status;
use crate::sampler::Edge;

/// So many messages and connections of one container are taken in a window; the rest waits for the next.
const MOST_IN_WINDOW: u32 = 100;
const WINDOW: Duration = Duration::from_millis(100);
/// So many clients of one container are served at a time; the rest waits.
const MOST_CLIENTS: usize = 32;
/// Root alone may connect.
const MODE: u32 = 0o600;
/// Every user of the container may; who else can reach it is a matter of the folders above.
const MODE_INSIDE: u32 = 0o666;

/// The window is over.
const TIMER: u64 = 0;
/// A hold stands.
const WORD: u64 = 1;
const FIRST: u64 = 2;

/// Tells whether what was asked for was done.
pub(super) type Doing = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Whoever changes the limits of one container.
pub trait Tuner: fmt::Debug + Send {
    /// See [`crate::sampler::Watched::hold`].
    fn hold(&self) -> Doing;
    /// See [`crate::sampler::Watched::release`].
    fn release(&self);
    /// See [`crate::sampler::Watched::edge`].
    fn edge(&self, edge: Edge);
    /// How the container stands, and how long it has run by now; none before its start.
    fn status(&self) -> Option<(Duration, Status)>;
    /// The container is an instance of this function.
    ///
    /// # Errors
    /// Why it cannot be, for the client.
    fn bind(&self, function: &str, class: Option<&ClassName>) -> std::result::Result<(), String>;
}

/// What may be said at a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    All,
    /// When a request begins and ends: what a container may say of itself.
    Phases,
}

/// A container that others may talk about.
#[derive(Debug)]
pub struct Subject {
    /// Its folder, with its record.
    pub folder: Folder,
    /// Who does what is asked for.
    pub tuner: Box<dyn Tuner>,
}

/// One container of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

/// The sockets of containers.
#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
    timer: OwnedFd,
    held: Arc<Waker>,
    doors: BTreeMap<u64, Door>,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

/// The socket of one container.
#[derive(Debug)]
struct Door {
    listener: UnixListener,
    subject: Subject,
    rights: Rights,
    clients: usize,
    holds: usize,
    /// When this window began.
    window: Instant,
    /// Taken in it.
    taken: u32,
    /// Nothing more is taken in it.
    is_closed: bool,
    /// Whether new clients are waited for.
    is_waited_for: bool,
}

#[derive(Debug)]
struct Client {
    door: u64,
    stream: UnixStream,
    received: Vec<u8>,
    hold: Hold,
    /// Whether messages of it are waited for.
    is_waited_for: bool,
}

enum Hold {
    None,
    /// Nothing else is done for the client before that is answered.
    Asked(Doing),
    Stands,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Asked(_) => "Asked",
            Self::Stands => "Stands",
        })
    }
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    /// More may come.
    Some,
    /// A message that is too long.
    TooMuch,
    /// Nothing will come any more.
    Last,
}

impl AsFd for Server {
    /// Readable when it needs a turn.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Server {
    /// A server of no container yet.
    ///
    /// # Errors
    /// `Kernel` when there are no descriptors left.
    pub fn new() -> Result<Self> {
        let fail = |what| move |err: rustix::io::Errno| KernelError::io("create", what, err.into());
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(fail("epoll"))?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map_err(fail("timer"))?;
        let held = Arc::new(Waker::new()?);
        let server = Self {
            epoll,
            timer,
            held,
            doors: BTreeMap::new(),
            clients: BTreeMap::new(),
            next: FIRST,
        };
        wait_for(&server.epoll, &server.timer, TIMER).map_err(fail("epoll"))?;
        wait_for(&server.epoll, server.held.as_fd(), WORD).map_err(fail("epoll"))?;
        Ok(server)
    }

    /// Listens at the socket of a container, in its folder.
    ///
    /// # Errors
    /// `Io` with its path.
    pub fn open(&mut self, subject: Subject) -> Result<Key> {
        self.listen(&subject.folder.socket(), subject, Rights::All)
    }

    /// Listens at another socket of the same container, in this folder, which it can see: by that it can say when a request
    /// begins and ends, and nothing else.
    ///
    /// # Errors
    /// `Io` with its path.
    pub fn open_inside(&mut self, inside: &Path, subject: Subject) -> Result<Key> {
        self.listen(&inside.join(SOCKET), subject, Rights::Phases)
    }

    fn listen(&mut self, path: &Path, subject: Subject, rights: Rights) -> Result<Key> {
        let mode = match rights {
            Rights::All => MODE,
            Rights::Phases => MODE_INSIDE,
        };
        let listener =
            socket::listen(path, mode).map_err(|err| ControlError::io("listen at", path, err))?;
        let key = self.fresh();
        wait_for(&self.epoll, &listener, key)
            .map_err(|err| ControlError::io("wait at", path, err.into()))?;
        let door = Door {
            listener,
            subject,
            rights,
            clients: 0,
            holds: 0,
            window: Instant::now(),
            taken: 0,
            is_closed: false,
            is_waited_for: true,
        };
        self.doors.insert(key, door);
        Ok(Key(key))
    }

    /// Leaves the clients of a container, and its holds.
    pub fn close(&mut self, key: Key) {
        for client in self.keys(|client| client.door == key.0) {
            if let Some(client) = self.clients.remove(&client) {
                self.leave(client);
            }
        }
        // Closing a descriptor that nobody else has takes it from what is waited for.
        self.doors.remove(&key.0);
    }

    /// Does what has been asked for by now, and never waits.
    pub fn turn(&mut self) {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        loop {
            let mut events = Vec::<Event>::with_capacity(16);
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, Some(&now)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            for event in events {
                match event.data.u64() {
                    TIMER => self.open_all(),
                    WORD => self.tell_held(),
                    key if self.doors.contains_key(&key) => self.accept(key),
                    key => self.serve(key, true),
                }
            }
        }
    }

    fn fresh(&mut self) -> u64 {
        let key = self.next;
        self.next = self.next.wrapping_add(1);
        key
    }

    /// A new client comes.
    fn accept(&mut self, key: u64) {
        let Some(door) = self.doors.get_mut(&key) else {
            return;
        };
        // Somebody may have gone away again.
        let Ok((stream, _)) = door.listener.accept() else {
            return;
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        door.clients += 1;
        let client = Client {
            door: key,
            stream,
            received: Vec::new(),
            hold: Hold::None,
            is_waited_for: false,
        };
        let number = self.fresh();
        self.clients.insert(number, client);
        self.count(key);
        self.wait_for(key);
    }

    /// Does what a client has asked for, after looking for more if `receive`.
    fn serve(&mut self, key: u64, receive: bool) {
        let Some(mut client) = self.clients.remove(&key) else {
            return;
        };
        let received = match receive {
            true => client.receive(),
            false => Received::Some,
        };
        let door = client.door;
        if self.obey(&mut client, received) {
            self.clients.insert(key, client);
        } else {
            self.leave(client);
        }
        self.wait_for(door);
    }

    /// Answers one message after the other; whether the client stays.
    fn obey(&mut self, client: &mut Client, received: Received) -> bool {
        while !matches!(client.hold, Hold::Asked(_))
            && self
                .doors
                .get(&client.door)
                .is_some_and(|door| !door.is_closed)
            && let Some(line) = client.line(received == Received::Last)
        {
            self.count(client.door);
            let answer = match Request::parse(&line) {
                Ok(request) => self.answer(client, request),
                Err(why) => Some(Answer::refused(why)),
            };
            if answer.is_some_and(|answer| !client.tell(&answer)) {
                return false;
            }
        }
        if received == Received::TooMuch {
            client.tell(&Answer::refused(format!(
                "a message has at most {LONGEST} bytes, and an answer is to be awaited"
            )));
        }
        received == Received::Some
    }

    /// Does what was asked for. No answer is one that comes later.
    fn answer(&mut self, client: &mut Client, request: Request) -> Option<Answer> {
        let door = self.doors.get_mut(&client.door)?;
        let subject = &door.subject;
        let is_phase = matches!(request, Request::Begin { .. } | Request::End);
        if door.rights == Rights::Phases && !is_phase {
            return Some(Answer::refused(
                "inside the container only phase is understood, with inputBytes and class",
            ));
        }
        match request {
            Request::Begin { input, class } => subject.tuner.edge(Edge::Begin { input, class }),
            Request::End => subject.tuner.edge(Edge::End),
            Request::Bind { function, class } => {
                if let Err(why) = subject.tuner.bind(&function, class.as_ref()) {
                    return Some(Answer::refused(why));
                }
            }
            Request::Status => return Some(Answer::with(door.status())),
            Request::Hold if matches!(client.hold, Hold::Stands) => {}
            Request::Hold => {
                client.hold = Hold::Asked(subject.tuner.hold());
                door.holds += 1;
                return self.held(client);
            }
        }
        Some(Answer::done())
    }

    /// The answer to the hold that was asked for, once it stands.
    fn held(&mut self, client: &mut Client) -> Option<Answer> {
        let Hold::Asked(doing) = &mut client.hold else {
            return None;
        };
        let waker = task::Waker::from(Arc::clone(&self.held));
        match doing.as_mut().poll(&mut task::Context::from_waker(&waker)) {
            Poll::Pending => None,
            Poll::Ready(true) => {
                client.hold = Hold::Stands;
                Some(Answer::done())
            }
            Poll::Ready(false) => {
                client.hold = Hold::None;
                if let Some(door) = self.doors.get_mut(&client.door) {
                    door.holds = door.holds.saturating_sub(1);
                    // It may have been counted, though it never stood.
                    door.subject.tuner.release();
                }
                Some(Answer::refused("nobody holds its limit"))
            }
        }
    }

    /// Some hold stands by now.
    fn tell_held(&mut self) {
        self.held.clear();
        let asked = |client: &Client| matches!(client.hold, Hold::Asked(_));
        for key in self.keys(asked) {
            let Some(mut client) = self.clients.remove(&key) else {
                continue;
            };
            let answer = self.held(&mut client);
            let stays = answer.is_none_or(|answer| client.tell(&answer));
            if stays {
                self.clients.insert(key, client);
                self.serve(key, false);
            } else {
                self.leave(client);
            }
        }
    }

    /// A client goes, and its hold with it.
    fn leave(&mut self, client: Client) {
        let Some(door) = self.doors.get_mut(&client.door) else {
            return;
        };
        door.clients = door.clients.saturating_sub(1);
        if !matches!(client.hold, Hold::None) {
            door.holds = door.holds.saturating_sub(1);
            door.subject.tuner.release();
        }
    }

    /// One more was taken from this container.
    fn count(&mut self, key: u64) {
        let is_set = self.doors.values().any(|door| door.is_closed);
        let Some(door) = self.doors.get_mut(&key) else {
            return;
        };
        if door.window.elapsed() >= WINDOW {
            door.window = Instant::now();
            door.taken = 0;
        }
        door.taken = door.taken.saturating_add(1);
        if door.taken >= MOST_IN_WINDOW {
            let window = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec {
                    tv_sec: 0,
                    tv_nsec: WINDOW.subsec_nanos().into(),
                },
            };
            // Without a timer nobody would open it again.
            door.is_closed =
                is_set || timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &window).is_ok();
        }
    }

    /// The next window begins.
    fn open_all(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        let closed: Vec<u64> = self
            .doors
            .iter_mut()
            .filter(|(_, door)| door.is_closed)
            .map(|(key, door)| {
                door.is_closed = false;
                door.taken = 0;
                door.window = Instant::now();
                *key
            })
            .collect();
        for door in closed {
            for client in self.keys(|client| client.door == door) {
                self.serve(client, false);
            }
            self.wait_for(door);
        }
    }

    fn keys(&self, is: impl Fn(&Client) -> bool) -> Vec<u64> {
        let found = self.clients.iter().filter(|(_, client)| is(client));
        found.map(|(key, _)| *key).collect()
    }

    /// Waits for what may be taken from a container now, and for nothing else.
    fn wait_for(&mut self, key: u64) {
        let Some(door) = self.doors.get_mut(&key) else {
            return;
        };
        let set = |source: BorrowedFd<'_>, key, is: &mut bool, wanted: bool| {
            let done = match (*is, wanted) {
                (false, true) => wait_for(&self.epoll, source, key),
                (true, false) => epoll::delete(&self.epoll, source),
                _ => return,
            };
            *is = wanted == done.is_ok();
        };
        let is_open = !door.is_closed;
        let wanted = is_open && door.clients < MOST_CLIENTS;
        let listener = door.listener.as_fd();
        set(listener, key, &mut door.is_waited_for, wanted);
        for (number, client) in &mut self.clients {
            if client.door == key {
                let stream = client.stream.as_fd();
                set(stream, *number, &mut client.is_waited_for, is_open);
            }
        }
    }
}

fn wait_for(epoll: &OwnedFd, source: impl AsFd, key: u64) -> rustix::io::Result<()> {
    epoll::add(epoll, source, EventData::new_u64(key), EventFlags::IN)
}

impl Door {
    fn status(&self) -> Map<String, Value> {
        let mut status = Map::new();
        if let Some(record) = self.subject.folder.written()
            && let Ok(Value::Object(fields)) = serde_json::to_value(record)
        {
            status.extend(fields.into_iter().filter(|(key, _)| {
                let told = [
                    "mode",
                    "ceiling",
                    "grant",
                    "reclaimable",
                    "function",
                    "class",
                ];
                told.contains(&key.as_str())
            }));
        }
        status.insert("holds".to_owned(), json!(self.holds));
        if let Some((now, seen)) = self.subject.tuner.status()
            && let Ok(Value::Object(fields)) = serde_json::to_value(Seen::new(now, seen))
        {
            status.extend(fields);
        }
        status
    }
}

impl Client {
    /// Takes what has come, as far as it is not too much.
    fn receive(&mut self) -> Received {
        let mut bytes = [0; LONGEST];
        let room = LONGEST.saturating_sub(self.received.len());
        let Some(room) = bytes.get_mut(..room).filter(|room| !room.is_empty()) else {
            return Received::TooMuch;
        };
        match self.stream.read(room) {
            Ok(0) => Received::Last,
            Ok(count) => {
                self.received.extend(room.iter().take(count));
                let is_full = self.received.len() >= LONGEST;
                match is_full && !self.received.contains(&b'\n') {
                    true => Received::TooMuch,
                    false => Received::Some,
                }
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Received::Some,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => Received::Some,
            Err(_) => Received::Last,
        }
    }

    /// The next message without its end; the last one needs none.
    fn line(&mut self, is_last: bool) -> Option<Vec<u8>> {
        let end = self.received.iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            let rest = std::mem::take(&mut self.received);
            if is_last && !rest.is_empty() {
                return Some(rest);
            }
            self.received = rest;
            return None;
        };
        let rest = self.received.split_off(end.saturating_add(1));
        let mut line = std::mem::replace(&mut self.received, rest);
        line.pop();
        Some(line)
    }

    /// Answers; whether that went well. A client that does not read its answers is not waited for.
    fn tell(&mut self, answer: &Answer) -> bool {
        let Ok(mut line) = serde_json::to_vec(answer) else {
            return false;
        };
        line.push(b'\n');
        self.stream.write_all(&line).is_ok()
    }
}

#[cfg(test)]
mod tests;
