"""The seed corpus: the tables of ``tests/wire``, some response headers, and ``corpus/``: what once found a bug."""

from __future__ import annotations

from pathlib import Path

from tests.wire import test_http1_requests, test_http1_strict

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 4096
LIMITED = bytes([0x01, 0x00, 0x1D])
UNLIMITED = bytes([0x00, 0x00, 0x07])
RESPONSE = bytes([0x04, 0x00, 0xC8])
RESPONSES = [
    b"content-type\x1ftext/plain\x1fcontent-length\x1f12",
    b"Connection\x1fclose, x\x1fTransfer-Encoding\x1fchunked\x1fx\x1fy",
    b"date\x1fnow\x1fserver\x1fme\x1fset-cookie\x1fa=b\x1fset-cookie\x1fc=d",
    b"location\x1f/\r\nset-cookie: a=b",
    b"a b\x1fc\x1f\x1f\x1fupgrade\x1fh2c\x1fte\x1f\x1ftrailer\x1fx\x1fkeep-alive\x1f1\x1fproxy-connection\x1f1",
    b"content-length\x1f0\x1fcontent-length\x1f0",
]


def seeds() -> dict[str, bytes]:
    """Name -> input, in an order that never changes."""
    found = {f"corpus/{path.name}": path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))}
    requests = [case.data for case in test_http1_requests.CASES] + [row.data for row in test_http1_strict.ROWS]
    requests = [data for data in requests if len(data) <= LARGEST]
    for i, data in enumerate(requests):
        found[f"request-{i}"] = UNLIMITED + data
        found[f"limited-{i}"] = LIMITED + data
        found[f"pipelined-{i}"] = UNLIMITED + data + requests[i * 7 % len(requests)]
    for i, data in enumerate(RESPONSES):
        found[f"response-{i}"] = RESPONSE + data
        found[f"defaulted-{i}"] = bytes([RESPONSE[0] | 2]) + RESPONSE[1:] + data
    return found


def dictionary() -> str:
    """Tokens in libFuzzer's format, for mutations that mean something."""
    tokens = [
        "\\x0d\\x0a", "\\x0d\\x0a\\x0d\\x0a", "\\x0d", "\\x0a", "\\x1f", " HTTP/1.1\\x0d\\x0a",
        " HTTP/1.0\\x0d\\x0a", "HTTP/2.0", "GET / ", "POST / ", "OPTIONS * ", "CONNECT ", "http://a", "https://",
        "?", "%41", "Host: a\\x0d\\x0a", "Host:", "[::1]:80", "Content-Length: ", "Content-Length: 5\\x0d\\x0a",
        "Transfer-Encoding: chunked\\x0d\\x0a", "Transfer-Encoding: ", "gzip, chunked",
        "Connection: close\\x0d\\x0a", "Connection: keep-alive\\x0d\\x0a", "Expect: 100-continue\\x0d\\x0a",
        "Upgrade: websocket\\x0d\\x0a", "0\\x0d\\x0a\\x0d\\x0a", "5\\x0d\\x0ahello\\x0d\\x0a", ";a=b",
        "ffffffffffffffff", ": ", "\\x09", "content-length\\x1f1", "connection\\x1fclose",
        "transfer-encoding\\x1fchunked", "date\\x1f", "server\\x1f",
    ]  # fmt: skip
    return "".join(f'"{token}"\n' for token in tokens)
