//! A client of a shim's socket that can name any service.
//!
//! The generated client knows `containerd.task.v3.Task` only; the frames are
//! simple enough to be written by hand.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::proto::{Request, Response};

use super::DEADLINE;

/// Of gRPC's codes those that are asked of ours alone; the others are compared.
pub const ALREADY_EXISTS: i32 = 6;
pub const UNIMPLEMENTED: i32 = 12;

/// An error of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    pub code: i32,
    pub message: String,
}

pub struct Client {
    stream: UnixStream,
    service: &'static str,
    next: u32,
}

impl Client {
    pub fn connect(socket: &Path, service: &'static str) -> Self {
        let stream = UnixStream::connect(socket)
            .unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.set_read_timeout(Some(*DEADLINE)).expect("timeout");
        stream.set_write_timeout(Some(*DEADLINE)).expect("timeout");
        Self {
            stream,
            service,
            next: 1,
        }
    }

    /// Calls a method and waits for the answer.
    pub fn call<A: Message>(&mut self, method: &str, request: &impl Message) -> Result<A, Status> {
        let stream_id = self.send(method, request);
        let (id, response) = self.receive();
        assert_eq!(id, stream_id, "the answer to another call");
        parse(response)
    }

    /// Sends a call without waiting; its number.
    pub fn send(&mut self, method: &str, request: &impl Message) -> u32 {
        let mut message = Request::new();
        message.service = self.service.to_owned();
        message.method = method.to_owned();
        message.payload = request.write_to_bytes().expect("encode");
        message.timeout_nano = i64::try_from(DEADLINE.as_nanos()).expect("timeout");
        let id = self.next;
        self.next += 2;
        write_frame(&mut self.stream, id, REQUEST, &message).expect("write to the shim");
        id
    }

    /// The next answer, or none when the server has ended.
    pub fn receive_or_end(&mut self) -> Option<Response> {
        let (_, _, payload) = read_frame(&mut self.stream).ok()?;
        Response::parse_from_bytes(&payload).ok()
    }

    /// The next answer and the number of its call.
    pub fn receive(&mut self) -> (u32, Response) {
        let (id, kind, payload) = read_frame(&mut self.stream).expect("an answer of the shim");
        assert_eq!(kind, RESPONSE);
        (id, Response::parse_from_bytes(&payload).expect("response"))
    }
}

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// The number of the call, the kind and the content of the next frame.
fn read_frame(stream: &mut UnixStream) -> std::io::Result<(u32, u8, Vec<u8>)> {
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let mut payload = vec![0; word(0) as usize];
    stream.read_exact(&mut payload)?;
    Ok((word(4), header[8], payload))
}

fn write_frame(
    stream: &mut UnixStream,
    id: u32,
    kind: u8,
    message: &impl Message,
) -> std::io::Result<()> {
    let payload = message.write_to_bytes().expect("encode");
    let mut frame = Vec::new();
    frame.extend_from_slice(&u32::try_from(payload.len()).expect("length").to_be_bytes());
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(&payload);
    stream.write_all(&frame)
}

/// Takes the place of containerd as receiver of events: answers every call,
/// and yields the topics.
pub fn receive_events(socket: &Path) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("bind");
    let (sender, topics) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                while let Ok((id, _, payload)) = read_frame(&mut stream) {
                    let request = Request::parse_from_bytes(&payload).expect("request");
                    let forward =
                        ForwardRequest::parse_from_bytes(&request.payload).expect("event");
                    let _ = sender.send(forward.envelope.topic.clone());
                    let mut response = Response::new();
                    response.payload = Vec::new();
                    if write_frame(&mut stream, id, RESPONSE, &response).is_err() {
                        break;
                    }
                }
            });
        }
    });
    topics
}

pub fn parse<A: Message>(response: Response) -> Result<A, Status> {
    match response.status.as_ref() {
        Some(status) if status.code() as i32 != 0 => Err(Status {
            code: status.code() as i32,
            message: status.message.clone(),
        }),
        _ => Ok(A::parse_from_bytes(&response.payload).expect("answer")),
    }
}
