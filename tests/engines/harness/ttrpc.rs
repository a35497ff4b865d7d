//! A client of a shim's socket that can name any service.
//!
//! The generated client knows `containerd.task.v3.Task` only; the frames are
//! simple enough to be written by hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::proto::{Request, Response};

use super::DEADLINE;

/// gRPC's codes, as far as the tests know them.
pub const NOT_FOUND: i32 = 5;
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
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
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
        let payload = message.write_to_bytes().expect("encode");
        let id = self.next;
        self.next += 2;
        let mut frame = Vec::new();
        frame.extend_from_slice(&u32::try_from(payload.len()).expect("length").to_be_bytes());
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(&[1, 0]);
        frame.extend_from_slice(&payload);
        self.stream.write_all(&frame).expect("write to the shim");
        id
    }

    /// The next answer and the number of its call.
    pub fn receive(&mut self) -> (u32, Response) {
        let mut header = [0; 10];
        self.stream.read_exact(&mut header).expect("an answer of the shim");
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("word"));
        assert_eq!(header[8], 2, "a response");
        let mut payload = vec![0; word(0) as usize];
        self.stream.read_exact(&mut payload).expect("the rest of the answer");
        (word(4), Response::parse_from_bytes(&payload).expect("response"))
    }
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
