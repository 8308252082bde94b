"""Clients that are silent, slow, malformed or gone delay no other by more than two seconds."""

import contextlib
import socket
import struct
import time

import psutil
import pytest

from tvm_bitenc.deploy import listen
from tvm_bitenc.deploy.connection import Connection
from tvm_bitenc.deploy.remote import remote_machine
from tvm_bitenc.deploy.serve import Server

MAGIC = 0xFF271
MOST_DELAY = 2.0
KEY = b"client:"
HELLO = struct.pack("<ii", MAGIC, len(KEY)) + KEY


@pytest.fixture(scope="module")
def alone():
    """A server, and the seconds that an honest client needs there when it is alone."""
    with Server(port=0) as server:
        honest(server)
        yield server, min(honest(server) for _ in range(3))


def honest(server: Server) -> float:
    """Seconds until a client has asked something and was answered."""
    start = time.monotonic()
    with Connection(port=server.port).session() as session:
        assert remote_machine(session).triple
    return time.monotonic() - start


def assert_no_delay(alone) -> None:
    server, usual = alone
    pid = server.process.pid
    taken = honest(server)
    assert taken < usual + MOST_DELAY, f"{taken:.2f} s, and {usual:.2f} s alone"
    assert server.process.pid == pid and server.process.poll() is None


def connected(server: Server, content: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), 5)
    client.sendall(content)
    return client


def hello(server: Server, *, packet: bytes = b"") -> socket.socket:
    """A client whose handshake is right."""
    client = connected(server, HELLO)
    assert client.recv(4) == struct.pack("<i", MAGIC)
    client.sendall(packet)
    return client


ENOUGH = 8  # Clients of a kind at once.
PACKET = struct.pack("<Q", 1 << 20)  # The beginning of a long packet.


@pytest.mark.parametrize(
    "content",
    [
        b"",  # Silent.
        b"\x71",  # The first byte of what would be right.
        struct.pack("<i", MAGIC),
        struct.pack("<ii", MAGIC, 100) + b"client",  # Half of a key.
        struct.pack("<ii", MAGIC, 2**31 - 1),  # A huge key.
        struct.pack("<ii", MAGIC, -1),
        struct.pack("<ii", MAGIC, 0),
        struct.pack("<ii", 0, 0),
        struct.pack("<ii", MAGIC, 4) + b"\xff\xfe\xfd\xfc",
        struct.pack("<ii", MAGIC, 4) + b"    ",
        struct.pack("<ii", MAGIC, 20) + b"client: -timeout=nan",
        struct.pack("<ii", MAGIC, 20) + b"client: -timeout=abc",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(1 << 16),
    ],
    ids=range(14),
)
def test_handshakes_that_are_none(content, alone):
    with contextlib.ExitStack() as stack:
        for _ in range(ENOUGH):
            with contextlib.suppress(ConnectionError):  # It may be refused while it still sends.
                stack.enter_context(connected(alone[0], content))
        assert_no_delay(alone)


@pytest.mark.parametrize(
    "packet", [b"", b"\x01", PACKET], ids=["silent", "a byte", "a long packet"]
)
def test_silence_after_the_handshake(packet, alone):
    with hello(alone[0], packet=packet):
        time.sleep(0.5)
        assert_no_delay(alone)


def test_a_byte_now_and_then(alone):
    """Both in the handshake and after it, while an honest client is served again and again."""
    with connected(alone[0]) as slow, hello(alone[0], packet=PACKET) as later:
        for byte in HELLO[:4]:
            slow.send(bytes([byte]))
            later.send(b"\x00")
            assert_no_delay(alone)
            time.sleep(0.3)


@pytest.mark.parametrize("packet", [b"\xff" * 64, struct.pack("<Q", 2**63) + bytes(64)])
def test_packets_that_are_none(packet, alone):
    with hello(alone[0], packet=packet):
        assert_no_delay(alone)


def test_floods(alone):
    """Many that connect and close, at once or with a reset, and more than there are places."""
    for number in range(300):
        client = connected(alone[0], HELLO if number % 3 else b"")
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert_no_delay(alone)
    with contextlib.ExitStack() as stack:
        for _ in range(2 * listen.HALF_OPEN):
            stack.enter_context(connected(alone[0]))
        assert_no_delay(alone)


def test_half_closed(alone):
    for content in (b"", HELLO, HELLO + PACKET):
        with connected(alone[0], content) as client:
            client.shutdown(socket.SHUT_WR)
            assert_no_delay(alone)


@pytest.mark.slow
def test_more_idle_sessions_than_there_are_places(alone, wait_until):
    """The oldest gives way."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(listen.SESSIONS):
            clients.append(stack.enter_context(hello(alone[0], packet=PACKET)))
            time.sleep(0.4)
        wait_until(lambda: len(sessions(alone[0])) == listen.SESSIONS)
        time.sleep(1.1)
        assert_no_delay(alone)
        assert b"others wait" in b"".join(iter(lambda: clients[0].recv(4096), b""))


def sessions(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def test_nothing_is_left(alone, wait_until):
    wait_until(lambda: not sessions(alone[0]))
    wait_until(lambda: len(psutil.Process(alone[0].process.pid).net_connections("tcp")) == 1)


def test_a_session_that_works_is_alone(alone, wait_until):
    """Two that work would disturb each other's times: the second waits for the first."""
    server, _ = alone
    there = Connection(port=server.port)
    with there.session() as first:
        end, answers = time.monotonic() + 2.0, 0
        waiting = hello(server, packet=PACKET)
        while time.monotonic() < end:
            remote_machine(first)
            answers += 1
            assert len(sessions(server)) == 1, "another was let in"
    with waiting:
        wait_until(lambda: len(sessions(server)) == 1)
    assert answers > 3
