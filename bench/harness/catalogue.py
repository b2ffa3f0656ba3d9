"""What is measured: the servers of peers.toml and the workloads, as frozen data."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import BenchError

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
APPS = BENCH / "apps"
BUILD = ROOT / "build"
VENVS = BUILD / "bench-venvs"

Role = Literal["ours", "peer", "limit", "variant"]


@dataclass(frozen=True)
class Server:
    """One `[[server]]` of peers.toml.

    `role`: "ours" is compared with every "peer"; a "variant" is shown and never compared; "limit" is the C loop.
    `install` are pip requirements, `distributions` those whose versions are reported. `command` starts the server;
    `quiet` is appended to switch its log off, `logging` to switch the access log on, `idle` so that idle connections
    stay open, `fleet` for `{workers}` workers that SIGHUP replaces, `reload` to follow changes of files. `source` is a
    directory of the repository put on the venv's path, `probe` a Python statement that must succeed for the server to
    be there at all. `workloads` empty means all of them.
    """

    name: str
    role: Role
    command: tuple[str, ...]
    title: str = ""
    install: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    logging: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    fleet: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    source: str = ""
    probe: str = ""
    workloads: tuple[str, ...] = ()
    default: bool = True

    @property
    def venv(self) -> Path:
        """Directory of the server's own venv (it may not exist yet)."""
        return VENVS / self.name

    @property
    def label(self) -> str:
        """The name shown in tables."""
        return self.title or self.name

    def argv(self, *, app: str, port: int, extra: Iterable[str]) -> list[str]:
        """The command that serves `bench/apps/{app}.py` on `port`, with `extra` arguments appended."""
        scripts = self.venv / "bin"
        places = {"python": scripts / "python", "bin": scripts, "build": BUILD, "app": app, "port": port}
        return [word.format_map(places) for word in (*self.command, *extra)]

    def with_workers(self, workers: int) -> list[str]:
        """The arguments for so many workers."""
        return [word.format(workers=workers) for word in self.fleet]

    @property
    def shown(self) -> str:
        """The command as a reader would type it: no directories, PORT and APP left open."""
        places = {"python": "python", "bin": "", "build": "", "app": "APP", "port": "PORT"}
        return " ".join(word.format_map(places).removeprefix("/") for word in (*self.command, *self.quiet))


@dataclass(frozen=True)
class Workload:
    """One kind of request.

    `app` is a module of bench/apps; `headers` are sent besides Host; `script` is a file of bench/wrk; `body` is what is
    posted (empty: GET) and `expected` the exact body of the answer. `target` is how many times the CPU of lastcall the
    best peer must use (issue 2).
    """

    name: str
    app: str
    expected: bytes
    target: float
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    script: str = ""


# What a desktop browser sends with a navigation, shortened to eleven fields besides Host.
BROWSER_HEADERS = (
    ("Connection", "keep-alive"),
    ("Cache-Control", "max-age=0"),
    ("Upgrade-Insecure-Requests", "1"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Sec-Fetch-Site", "none"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Dest", "document"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-US,en;q=0.9"),
    ("Cookie", "session=5f2b8c1de0a94f6c; theme=dark; consent=1"),
)

_HELLO = b"Hello, World!"
_POSTED = b"0123456789abcdef" * 640

WORKLOADS = (
    Workload("plain", "plain", _HELLO, 1.15),
    Workload("headers", "plain", _HELLO, 1.15, headers=BROWSER_HEADERS),
    Workload("echo", "echo", _POSTED, 1.1, body=_POSTED, script="echo.lua"),
    Workload("stream", "stream", b"0123456789abcdef" * 4 * 100, 1.3),
    Workload("sleep", "sleep", _HELLO, 1.0),
    Workload("fastapi", "fastapi_json", b'{"message":"Hello, World!"}', 1.0),
)
LIMIT_TARGET = 1.5  # lastcall's CPU for plain may be this many times the C loop's (issue 2)


@dataclass(frozen=True)
class Catalogue:
    """All servers of peers.toml, and what every venv gets besides the server."""

    servers: tuple[Server, ...]
    common_install: tuple[str, ...]
    common_distributions: tuple[str, ...]

    def select(self, names: Iterable[str] | None) -> list[Server]:
        """The servers called `names`, in the file's order; without names those that are on by default.

        Raises BenchError for a name that is not in the file.
        """
        if names is None:
            return [server for server in self.servers if server.default]
        wanted = set(names)
        unknown = wanted - {server.name for server in self.servers}
        if unknown:
            known = ", ".join(server.name for server in self.servers)
            raise BenchError(f"no such server: {', '.join(sorted(unknown))} (there are: {known})")
        return [server for server in self.servers if server.name in wanted]


def select_workloads(names: Iterable[str] | None) -> list[Workload]:
    """The workloads called `names`, in table order; all of them without names. Raises BenchError for an unknown one."""
    if names is None:
        return list(WORKLOADS)
    wanted = set(names)
    unknown = wanted - {workload.name for workload in WORKLOADS}
    if unknown:
        known = ", ".join(workload.name for workload in WORKLOADS)
        raise BenchError(f"no such workload: {', '.join(sorted(unknown))} (there are: {known})")
    return [workload for workload in WORKLOADS if workload.name in wanted]


def workload(name: str) -> Workload:
    """The workload called `name`."""
    return select_workloads([name])[0]


def parse_catalogue(data: Mapping[str, Any]) -> Catalogue:
    """Build the catalogue from the parsed TOML. Raises BenchError for a key or a role that means nothing."""
    servers = []
    for entry in data["server"]:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        try:
            server = Server(**fields)
        except TypeError as exc:
            raise BenchError(f"peers.toml: server {entry.get('name', '?')}: {exc}") from None
        if server.role not in ("ours", "peer", "limit", "variant"):
            raise BenchError(f"peers.toml: server {server.name}: unknown role {server.role!r}")
        servers.append(server)
    common = data["common"]
    return Catalogue(tuple(servers), tuple(common["install"]), tuple(common["distributions"]))


def load_catalogue() -> Catalogue:
    """Read bench/peers.toml."""
    with (BENCH / "peers.toml").open("rb") as file:
        return parse_catalogue(tomllib.load(file))
