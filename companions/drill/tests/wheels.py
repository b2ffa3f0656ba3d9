"""Wheels that a test makes itself, so that pip installs them without a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

TINY_SERVER = """
import signal, socket, sys, time


def main():
    port = int(sys.argv[sys.argv.index("--port") + 1])
    listener = socket.create_server(("127.0.0.1", port))
    if "--limit" not in sys.argv and {stubborn}:
        signal.signal(signal.SIGTERM, lambda *_: print("tinyserver: will not stop", flush=True))
    else:
        signal.signal(signal.SIGTERM, stop)
    while True:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n")


def stop(*_):
    print("app: shutdown", flush=True)
    sys.exit(0)
"""


def tiny_server(stubborn: bool) -> str:
    """The source of a server that answers everything with hello, and exits at SIGTERM unless it is stubborn."""
    return TINY_SERVER.replace("{stubborn}", repr(stubborn))


def build_wheel(directory: Path, name: str, version: str, source: str) -> Path:
    """A wheel with one module, and a command of the same name that calls its ``main``."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    rows = []
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{file},sha256={digest},{len(text.encode())}")
            wheel.writestr(file, text)
        wheel.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return path
