"""A client for the task service of a shim: ttrpc and the few protobuf messages that it needs, by hand.

ttrpc (github.com/containerd/ttrpc, PROTOCOL.md): frames of a 10 byte header and a body. Header: length of the
body, number of the stream (odd from a client), type (1 request, 2 response), flags.
"""

import socket
import struct

SERVICE = "containerd.task.v{}.Task"  # the messages of versions 2 and 3 are the same
NAMESPACE_KEY = "containerd-namespace-ttrpc"
REQUEST, RESPONSE = 1, 2
HEADER = struct.Struct(">IIBB")
LARGEST = 4 << 20


class CallFailed(Exception):
    """The shim answered with an error, or not at all."""


# protobuf: a message is a list of (field number, value); values are int, str, bytes, or a message


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(fields):
    """Zero and empty values are left out, as the default that they are."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            if value:
                out += varint(number << 3) + varint(value)
            continue
        data = value.encode() if isinstance(value, str) else encode(value) if isinstance(value, list) else value
        if data or isinstance(value, list):
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(out)


def decode(data):
    """{field number: [values]}; a nested message stays bytes."""
    result = {}
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def take(size):
        nonlocal at
        if at + size > len(data):
            raise ValueError("a field reaches beyond its message")
        at += size
        return bytes(data[at - size : at])

    try:
        while at < len(data):
            key = number()
            kind = key & 7
            if kind == 0:
                value = number()
            elif kind == 1:
                value = take(8)
            elif kind == 2:
                value = take(number())
            elif kind == 5:
                value = take(4)
            else:
                raise ValueError(f"wire type {kind}")
            result.setdefault(key >> 3, []).append(value)
    except IndexError:
        raise ValueError("a message ends in the middle of a number") from None
    return result


def first(message, field, default=0):
    return message.get(field, [default])[0]


# The connection


class Task:
    """A connection to a shim. Requests are sent at once; answers are taken in any order."""

    def __init__(self, path, version, namespace, timeout):
        self.service = SERVICE.format(version)
        self.namespace = namespace
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.stream = -1
        self.buffer = b""
        self.answers = {}

    def close(self):
        self.socket.close()

    def send(self, method, fields):
        """Sends a request; returns the stream on which its answer comes."""
        self.stream += 2
        metadata = [(1, NAMESPACE_KEY), (2, self.namespace)]
        body = encode([(1, self.service), (2, method), (3, encode(fields)), (5, metadata)])
        self.socket.sendall(HEADER.pack(len(body), self.stream, REQUEST, 0) + body)
        return self.stream

    def answer(self, stream, what):
        """Waits for the answer on a stream; returns its message."""
        while stream not in self.answers:
            size, number, kind, _ = HEADER.unpack(self._read(HEADER.size, what))
            if size > LARGEST or kind != RESPONSE:
                raise CallFailed(f"{what}: the shim sent a frame of type {kind} with {size} bytes")
            self.answers[number] = self._read(size, what)
        response = decode(self.answers.pop(stream))
        status = decode(first(response, 1, b""))
        if first(status, 1):
            text = first(status, 2, b"").decode(errors="replace")
            raise CallFailed(f"{what}: the shim answered with code {first(status, 1)}: {text}")
        return decode(first(response, 2, b""))

    def _read(self, size, what):
        while len(self.buffer) < size:
            try:
                data = self.socket.recv(65536)
            except (TimeoutError, ConnectionError) as error:
                raise CallFailed(f"{what}: {error}") from None
            if not data:
                raise CallFailed(f"{what}: the shim closed the connection")
            self.buffer += data
        result, self.buffer = self.buffer[:size], self.buffer[size:]
        return result

    def wait_closed(self):
        """Waits until the shim closes the connection, as containerd does after Shutdown."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            raise CallFailed("the shim did not close the connection after Shutdown") from None

    # The calls of github.com/containerd/containerd/api/runtime/task

    def call(self, method, fields):
        return self.answer(self.send(method, fields), method)

    def create(self, identity, bundle, mounts, stdout, stderr):
        rootfs = [(3, [(1, kind), (2, source), *((4, text) for text in options)]) for kind, source, options in mounts]
        return first(self.call("Create", [(1, identity), (2, bundle), *rootfs, (6, stdout), (7, stderr)]), 1)

    def start(self, identity):
        return first(self.call("Start", [(1, identity)]), 1)

    def begin_wait(self, identity):
        return self.send("Wait", [(1, identity)])

    def end_wait(self, stream):
        """The exit status of the container's process."""
        return first(self.answer(stream, "Wait"), 1)

    def shim_pid(self, identity):
        return first(self.call("Connect", [(1, identity)]), 1)

    def kill(self, identity, signal):
        self.call("Kill", [(1, identity), (3, signal)])

    def delete(self, identity):
        self.call("Delete", [(1, identity)])

    def shutdown(self, identity):
        """A shim may be gone before it has answered."""
        try:
            self.call("Shutdown", [(1, identity)])
        except (CallFailed, BrokenPipeError):
            pass
