"""Reads the configuration of reverse proxies: nginx, and what matters here of HAProxy's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from lastcall_doctor.facts import HiddenCut, Proxy, Route, UnreadableError
from lastcall_doctor.facts_unit import read_text
from lastcall_doctor.spans import haproxy_time, nginx_time
from lastcall_drill.record import Record, replace

DEFAULT_READ_TIMEOUT: Final = 60.0
DEFAULT_UPSTREAM_IDLE: Final = 60.0
DEEPEST: Final = 50

_HAPROXY_SECTION: Final = re.compile(r"^(global|defaults|frontend|backend|listen)\b", re.MULTILINE)
_HAPROXY_ROUTE: Final = ("backend", "listen")
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)|(?P<comment>\#[^\n]*)|(?P<sign>[{};])
      |"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'
      |(?P<word>(?:\\.|\$\{[^}\s]*\}|[^\s{};"'\\])(?:\\.|\$\{[^}\s]*\}|[^\s{};\\])*)""",
    re.VERBOSE | re.DOTALL,
)

_FOREIGN: Final = re.compile(r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|--[^\n]*|[{}]""")
"""What matters in a block of Lua: braces, and what may hide them."""


class Directive(Record):
    """One directive of nginx: name, arguments, line, and the directives of its block, None without one."""

    name: str
    args: tuple[str, ...]
    line: int
    block: tuple[Directive, ...] | None = None


class Upstream(Record):
    """A group of servers. ``keeps``: it keeps idle connections, for ``idle`` seconds."""

    keeps: bool = False
    idle: float = DEFAULT_UPSTREAM_IDLE


class Inherited(Record):
    """What a location takes from the blocks around it."""

    buffering: bool = True
    ignores: tuple[str, ...] = ()
    read_timeout: float = DEFAULT_READ_TIMEOUT
    version: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def read_proxy(path: Path) -> Proxy:
    """The configuration in ``path``: HAProxy's if it has one of its sections, else nginx's; no ``include`` is followed.

    Raises :class:`UnreadableError`.
    """
    text = read_text(path)
    if _HAPROXY_SECTION.search(text) and "{" not in re.sub(r"#.*", "", text).partition("\n")[0]:
        routes = tuple(_haproxy_routes(text, str(path)))
        return Proxy("haproxy", str(path), routes, tuple(_http2_in_front(text, str(path))))
    routes = nginx_routes(parse_nginx(text, str(path)), str(path))
    hidden = tuple(HiddenCut(one.where, "tls") for one in routes if one.tls and not one.framed)
    return Proxy("nginx", str(path), routes, hidden)


# -- nginx ------------------------------------------------------------------------------------------------------------


def parse_nginx(text: str, file: str) -> tuple[Directive, ...]:
    """The directives of a configuration. Raises :class:`UnreadableError`."""
    open_blocks: list[tuple[str, tuple[str, ...], int]] = []
    levels: list[list[Directive]] = [[]]
    words: list[str] = []
    begun = line = 1
    for kind, value, line in _tokens(text, file):
        if kind != "sign":
            begun = begun if words else line
            words.append(value)
        elif value == ";":
            if not words:
                raise UnreadableError(file, line, 'unexpected ";"')
            levels[-1].append(Directive(words[0], tuple(words[1:]), begun))
            words = []
        elif value == "{":
            if not words or len(levels) > DEEPEST:
                raise UnreadableError(file, line, 'unexpected "{"')
            open_blocks.append((words[0], tuple(words[1:]), begun))
            levels.append([])
            words = []
        else:
            if words or not open_blocks:
                raise UnreadableError(file, line, 'unexpected "}"' + (', expected ";"' if words else ""))
            name, args, start = open_blocks.pop()
            inner = tuple(levels.pop())
            levels[-1].append(Directive(name, args, start, inner))
    if words or open_blocks:
        missing = '";"' if words else f'"}}" of {open_blocks[-1][0]} in line {open_blocks[-1][2]}'
        raise UnreadableError(file, line, f"the file ends, expected {missing}")
    return tuple(levels[0])


def _tokens(text: str, file: str) -> Iterator[tuple[str, str, int]]:
    position, line, last = 0, 1, ""
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnreadableError(
                file, line, f"expected a directive, not {text[position : position + 20].splitlines()[0]!r}"
            )
        kind = str(match.lastgroup)
        value = match[kind]
        if kind not in ("space", "comment"):
            yield ("sign" if kind == "sign" else "word"), re.sub(r'\\(["\'\\ ])', r"\1", value), line
        position, start = match.end(), position
        if kind == "sign" and value == "{" and last.endswith("_by_lua_block"):
            position = _after_foreign_block(text, position, file, line) - 1
        elif kind not in ("space", "comment"):
            last = value
        line += text.count("\n", start, position)


def _after_foreign_block(text: str, position: int, file: str, line: int) -> int:
    """The position after the brace that closes a block in another language, where "{" has just been read."""
    depth = 1
    for match in _FOREIGN.finditer(text, position):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    raise UnreadableError(file, line, 'the file ends, expected "}"')


def nginx_routes(directives: tuple[Directive, ...], file: str) -> tuple[Route, ...]:
    """Every location that passes requests on by HTTP. Raises :class:`UnreadableError` for times that are none."""
    upstreams = {
        one.args[0]: _upstream(one, file) for one in _all(directives) if one.name == "upstream" and len(one.args) == 1
    }
    return tuple(_walk(directives, Inherited(), upstreams, file, [0]))


def _all(directives: tuple[Directive, ...]) -> Iterator[Directive]:
    for one in directives:
        yield one
        yield from _all(one.block or ())


def _walk(
    block: tuple[Directive, ...],
    around: Inherited,
    upstreams: dict[str, Upstream],
    file: str,
    server: list[int],
) -> Iterator[Route]:
    here = _inherit(block, around, file)
    for one in block:
        if one.block is None or one.name in ("upstream", "if", "types", "map", "geo"):
            continue
        if one.name == "server":
            server[0] += 1
        if one.name == "location" and one.args:
            passed = next((inner for inner in one.block if inner.name == "proxy_pass" and inner.args), None)
            if passed is not None:
                route = _route(one, _inherit(one.block, here, file), file)
                yield replace(_reuse(route, passed.args[0], upstreams), server=server[0])
        yield from _walk(one.block, here, upstreams, file, server)


def _inherit(block: tuple[Directive, ...], around: Inherited, file: str) -> Inherited:
    changes: dict[str, object] = {}
    headers = [
        (one.args[0].lower(), one.args[1]) for one in block if one.name == "proxy_set_header" and len(one.args) == 2
    ]
    if headers:  # none of those around is inherited then
        changes["headers"] = tuple(headers)
    for one in block:
        if not one.args or one.block is not None:
            continue
        if one.name == "proxy_buffering":
            changes["buffering"] = one.args[0] != "off"
        elif one.name == "proxy_ignore_headers":
            changes["ignores"] = tuple(name.lower() for name in one.args)
        elif one.name == "proxy_read_timeout":
            changes["read_timeout"] = _time(one, file, nginx_time)
        elif one.name == "proxy_http_version":
            changes["version"] = one.args[0]
    return replace(around, **changes)


def _route(location: Directive, here: Inherited, file: str) -> Route:
    modifier, match = ("", location.args[0]) if len(location.args) == 1 else location.args[:2]
    connection = dict(here.headers).get("connection", "close").lower()
    return Route(
        where=f"{file}:{location.line}: location {' '.join(location.args)}",
        modifier=modifier,
        match=match,
        buffering=here.buffering,
        ignores_accel="x-accel-buffering" in here.ignores,
        read_timeout=here.read_timeout,
        reuses=here.version in ("1.1", "2") and connection != "close",
        framed=here.version in ("1.1", "2"),
    )


def _reuse(route: Route, target: str, upstreams: dict[str, Upstream]) -> Route:
    """``route`` with what the upstream that it goes to says of idle connections."""
    name = re.sub(r"^https?://", "", target).partition("/")[0]
    upstream = upstreams.get(name)
    route = replace(route, tls=target.startswith("https://"))
    return replace(route, keep_alive=upstream.idle) if upstream is not None and upstream.keeps else route


def _upstream(one: Directive, file: str) -> Upstream:
    keeps, idle = False, DEFAULT_UPSTREAM_IDLE
    for inner in one.block or ():
        if inner.name == "keepalive" and inner.args:
            keeps = inner.args[0] != "0"
        elif inner.name == "keepalive_timeout" and inner.args:
            idle = _time(inner, file, nginx_time)
    return Upstream(keeps, idle)


def _time(one: Directive, file: str, read: Callable[[str], float]) -> float:
    try:
        return read(one.args[0])
    except ValueError as error:
        what = f"{one.name} {' '.join(one.args)} is not usable: expected {error}"
        raise UnreadableError(file, one.line, what) from None


def routes_for(proxy: Proxy, path: str) -> tuple[Route, ...]:
    """The route that each virtual server would choose for ``path``: nginx's rules."""
    found = []
    for number in dict.fromkeys(route.server for route in proxy.routes):
        chosen = _choose([route for route in proxy.routes if route.server == number], path.partition("?")[0])
        if chosen is not None:
            found.append(chosen)
    return tuple(found)


def _choose(routes: list[Route], path: str) -> Route | None:
    exact = [route for route in routes if route.modifier == "=" and route.match == path]
    prefixes = [route for route in routes if route.modifier in ("", "^~") and path.startswith(route.match)]
    longest = max(prefixes, key=lambda route: len(route.match), default=None)
    if exact:
        return exact[0]
    if longest is None or longest.modifier != "^~":
        for route in routes:
            if route.modifier in ("~", "~*") and _matches(route, path):
                return route
    return longest


def _matches(route: Route, path: str) -> bool:
    try:
        return re.search(route.match, path, re.IGNORECASE if route.modifier == "~*" else 0) is not None
    except re.error:  # PCRE knows more than Python does
        return False


# -- HAProxy ----------------------------------------------------------------------------------------------------------


def _haproxy_routes(text: str, file: str) -> Iterator[Route]:
    """Each backend, with its ``timeout server``. HAProxy does not buffer responses."""
    defaults = math.inf
    sections: list[tuple[str, int, list[float]]] = []
    for number, raw in enumerate(text.split("\n"), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        if not raw[0].isspace():
            if words[0] in _HAPROXY_ROUTE and len(words) < 2:
                raise UnreadableError(file, number, f"expected a name after {words[0]}")
            sections.append((" ".join(words[:2]), number, []))
        elif not sections:
            raise UnreadableError(file, number, f"expected a section as in defaults, not {words[0]!r}")
        elif words[:2] == ["timeout", "server"]:
            try:
                seconds = haproxy_time(words[2] if len(words) > 2 else "")
            except ValueError as error:
                raise UnreadableError(file, number, f"timeout server: expected {error}") from None
            if sections[-1][0].startswith("defaults"):
                defaults = seconds
            else:
                sections[-1][2].append(seconds)
    for title, number, times in sections:
        if title.startswith(_HAPROXY_ROUTE):
            yield Route(
                where=f"{file}:{number}: {title}",
                buffering=False,
                read_timeout=times[-1] if times else defaults,
            )


def _http2_in_front(text: str, file: str) -> Iterator[HiddenCut]:
    """Where HAProxy accepts HTTP/2: it is asked for, or ``ssl`` without ``alpn`` offers it (since 2.8)."""
    for number, raw in enumerate(text.split("\n"), 1):
        words = raw.partition("#")[0].split()
        if words[:1] != ["bind"]:
            continue
        offered = _word_after(words, "alpn") or _word_after(words, "npn")
        by_default = "ssl" in words and not offered and "no-alpn" not in words
        if "h2" in offered.split(",") or _word_after(words, "proto") == "h2" or by_default:
            yield HiddenCut(f"{file}:{number}: bind {' '.join(words[1:2])}", "http2")


def _word_after(words: Sequence[str], name: str) -> str:
    return words[words.index(name) + 1] if name in words[:-1] else ""
