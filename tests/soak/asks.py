"""Well-formed requests, each with the one answer that is right for it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.soak.client import Answer, WrongAnswer
from tests.soak.content import CONTENT, LONGEST, fingerprint


@dataclass(frozen=True)
class Ask:
    """``data`` is the whole request; ``body`` what the answer must hold."""

    method: str
    token: str
    data: bytes
    body: bytes | memoryview
    status: int = 200
    framed: bool = True  # False: from HTTP/1.0, and the answer's end is the end of the connection

    def check(self, answer: Answer) -> None:
        """:raises WrongAnswer: it is not the answer to this request."""
        if answer.status != self.status:
            raise WrongAnswer(f"{self}: status {answer.status}, body {answer.body[:100]!r}")
        if answer.headers.get("x-id", "-") != self.token:
            raise WrongAnswer(f"{self}: the answer to another request ({answer.headers.get('x-id')})")
        if not answer.complete:
            raise WrongAnswer(f"{self}: cut after {len(answer.body)} bytes")
        if answer.body != self.body:
            raise WrongAnswer(f"{self}: {len(answer.body)} bytes, not the {len(self.body)} that were asked for")

    def __str__(self) -> str:
        return self.data.partition(b"\r\n")[0].decode()


def request(
    method: str, path: str, token: str, *fields: str, version: str = "1.1", body: bytes | memoryview = b""
) -> bytes:
    """One request; ``body`` needs its own framing in ``fields``."""
    target = f"{path}{'&' if '?' in path else '?'}id={token}"
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: soak", *fields, "", ""]).encode() + bytes(body)


def chunked(data: memoryview, rng: random.Random) -> bytes:
    """``data`` in chunks of random sizes, now and then with an extension or trailers."""
    out, at = bytearray(), 0
    while at < len(data):
        size = min(len(data) - at, int(2 ** rng.uniform(0, 17)) if len(data) > 1000 else rng.randint(1, 500))
        out += b"%x%b\r\n" % (size, b";name=value" if rng.random() < 0.05 else b"")
        out += data[at : at + size]
        out += b"\r\n"
        at += size
    return bytes(out + (b"0\r\nX-Trailer: t\r\n\r\n" if rng.random() < 0.1 else b"0\r\n\r\n"))


def upload_size(rng: random.Random) -> int:
    """10 KB to 2 MB, small ones more often."""
    return min(LONGEST, int(10_000 * 200 ** rng.random()))


def upload(rng: random.Random, token: str, n: int, *fields: str) -> Ask:
    """A body of ``n`` bytes, with its length or chunked; the answer holds its length and hash."""
    data = CONTENT[:n]
    if rng.random() < 0.5:
        head = request("POST", "/upload", token, *fields, f"Content-Length: {n}")
        raw = head + bytes(data)
    else:
        raw = request("POST", "/upload", token, *fields, "Transfer-Encoding: chunked") + chunked(data, rng)
    return Ask("POST", token, raw, f"{n} {fingerprint(data)}".encode())


def small(rng: random.Random, token: str) -> Ask:
    """A request that costs little and keeps the connection alive."""
    kind = rng.randrange(12)
    fields: tuple[str, ...] = ()
    if rng.random() < 0.3:
        fields = ("User-Agent: soak", "Accept: */*", f"Cookie: session={rng.getrandbits(64):x}")
    if kind < 5:
        return Ask("GET", token, request("GET", "/plain", token, *fields), b"ok")
    n = rng.randrange(20_000)
    if kind == 5:
        return Ask("GET", token, request("GET", f"/bytes?n={n}", token, *fields), CONTENT[:n])
    if kind == 6:
        path = f"/stream?n={n}&piece={rng.randint(200, 20_000)}"
        return Ask("GET", token, request("GET", path, token, *fields), CONTENT[:n])
    if kind == 7:
        path = rng.choice(["/plain", f"/bytes?n={n}", f"/stream?n={n}&piece=5000"])
        return Ask("HEAD", token, request("HEAD", path, token, *fields), b"")
    if kind == 8:
        code = rng.choice([204, 304])
        return Ask("GET", token, request("GET", f"/status?code={code}", token, *fields), b"", code)
    if kind == 9:
        return Ask("GET", token, request("GET", "/no%20such/path", token, *fields), b"not found", 404)
    if kind == 10:
        return Ask("GET", token, request("GET", f"/sleep?ms={rng.randrange(5)}", token, *fields), b"slept")
    return upload(rng, token, rng.randrange(4_000), *fields)


def old(rng: random.Random, token: str) -> Ask:
    """HTTP/1.0, kept alive or not, with and without a length."""
    n = rng.randrange(50_000)
    keep_alive = ("Connection: keep-alive",) if rng.random() < 0.4 else ()
    if rng.random() < 0.5:
        data = request("GET", f"/stream?n={n}&piece=3000", token, *keep_alive, version="1.0")
        return Ask("GET", token, data, CONTENT[:n], framed=False)
    data = request("GET", f"/bytes?n={n}", token, *keep_alive, version="1.0")
    return Ask("GET", token, data, CONTENT[:n], framed=bool(keep_alive))


def _with(*fields: str, body: bytes = b"", method: str = "POST") -> bytes:
    return request(method, "/upload", "bad", *fields, body=body)


# What must be refused, and with which status.
MALFORMED: tuple[tuple[int, bytes], ...] = (
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n"),
    (400, b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"nonsense\r\n\r\n"),
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    (400, _with("Content-Length: 4", "Content-Length: 5", body=b"12345")),
    (400, _with("Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    (400, _with("Content-Length: +4", body=b"1234")),
    (400, _with("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n")),
    (400, _with("Transfer-Encoding: chunked", body=b"3\r\nabc\r\nno size\r\n")),
    (400, _with("Transfer-Encoding: chunked", body=b"3\r\nabcd")),
    (414, b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    (417, _with("Expect: miracles", method="GET")),
    (431, _with(*["X: y"] * 200, method="GET")),
    (431, _with("X: " + "y" * 70_000, method="GET")),
    (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    (501, _with("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
)
