"""Proxy rules: what is wrong with load balancers, proxies, and the headers that they heed. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from lastcall_doctor.catalogue import Finding, Severity
from lastcall_doctor.facts import Facts, Probe, Proxy, Route
from lastcall_doctor.facts_proxy import routes_for

LONGER: Final = 15
"""Seconds that the server should keep an idle connection beyond the balancer."""
QUIET: Final = 60.0
"""A proxy that cuts streams after so many silent seconds, or fewer, cuts ordinary ones."""


def keep_alive(facts: Facts) -> Iterator[Finding]:
    """Whoever sends requests has to be the one that closes idle connections."""
    others = [("the load balancer", facts.lb_idle)] if facts.lb_idle is not None else []
    for proxy in facts.proxies:
        idle = [route.keep_alive for route in proxy.routes if route.keep_alive is not None and route.reuses]
        if idle:
            others.append((f"nginx ({proxy.file})", max(idle)))
    for server in facts.servers:
        if server.refused or server.keep_alive == 0:
            continue
        for name, idle_for in others:
            if server.keep_alive <= idle_for:
                text = (
                    f"{server.name} closes idle connections after {server.keep_alive:g} s, {name} after "
                    f"{idle_for:g} s: now and then a request meets a connection that is just being closed, and gets a "
                    "502."
                )
                line = f"{server.keep_alive_flag} {math.ceil(idle_for) + LONGER}"
                fix = f"Let {server.name} wait longer than whoever sends the requests."
                yield Finding("keep-alive", Severity.ERROR, server.where, text, fix, (line,))


def proxy_buffering(facts: Facts) -> Iterator[Finding]:
    """Whether nginx passes events on as they come."""
    one = facts.probe
    for proxy in facts.proxies:
        if proxy.kind != "nginx":
            continue
        if one is not None and one.streams:
            for route in routes_for(proxy, one.path):
                yield from _kept_back(route, one)
        elif one is None and proxy.routes and all(route.buffering for route in proxy.routes):
            text = (
                "No location of this nginx has proxy_buffering off: events reach clients late and in lumps, unless the "
                "application sends X-Accel-Buffering: no with them."
            )
            fix = "Switch it off where the streams are, or send that header; --probe PATH looks for it."
            yield Finding("proxy-buffering", Severity.WARNING, proxy.file, text, fix, ("proxy_buffering off;",))


def _kept_back(route: Route, one: Probe) -> Iterator[Finding]:
    header = one.headers.get("x-accel-buffering", "").strip().lower()
    if not route.buffering and header != "yes":
        return
    if header == "no" and not route.ignores_accel:
        return
    why = "and ignores X-Accel-Buffering" if header == "no" else "and the response has no X-Accel-Buffering: no"
    what = "an event stream" if one.events else "a stream"
    text = f"nginx buffers GET {one.path}, {what}, {why}: it arrives late, in lumps."
    fix = "Switch buffering off in this location, or send the header X-Accel-Buffering: no."
    severity = Severity.ERROR if one.events else Severity.WARNING
    yield Finding("proxy-buffering", severity, route.where, text, fix, ("proxy_buffering off;",))


def proxy_read_timeout(facts: Facts) -> Iterator[Finding]:
    """How long a stream may be silent on its way."""
    for proxy in facts.proxies:
        for route in _streaming(proxy, facts.probe):
            if route.read_timeout <= QUIET:
                text = f"The proxy cuts a stream that is silent for {route.read_timeout:g} s."
                fix = "Allow longer silences, or send a heartbeat more often than that (in SSE: a line ': ping')."
                line = "proxy_read_timeout 1h;" if proxy.kind == "nginx" else "timeout server 1h"
                yield Finding("proxy-read-timeout", Severity.NOTE, route.where, text, fix, (line,))


def _streaming(proxy: Proxy, one: Probe | None) -> tuple[Route, ...]:
    """The routes that streams are known to take: to the probed path, or those that do not buffer."""
    if one is not None:
        if not one.streams:
            return ()
        return routes_for(proxy, one.path) if proxy.kind == "nginx" else proxy.routes
    return tuple(route for route in proxy.routes if not route.buffering) if proxy.kind == "nginx" else ()


def proxy_keep_alive(facts: Facts) -> Iterator[Finding]:
    """Whether nginx can use a connection twice, where it wants to."""
    for proxy in facts.proxies:
        for route in proxy.routes:
            if route.keep_alive is not None and not route.reuses:
                text = (
                    "The upstream has keepalive, but nginx before 1.29.7 asks with HTTP/1.0 and Connection: close: "
                    "each request needs a new connection."
                )
                lines = ("proxy_http_version 1.1;", 'proxy_set_header Connection "";')
                fix = "Say both in this location."
                yield Finding("proxy-keep-alive", Severity.WARNING, route.where, text, fix, lines)


def cut_hidden(facts: Facts) -> Iterator[Finding]:
    """Where a response that was cut looks complete behind a proxy, however it was cut."""
    texts = {
        "http2": "HTTP/2 is offered here: HAProxy (seen with 2.6) ends every response that the server has cut as if it "
        "were complete. Only one that is short of its Content-Length looks cut.",
        "tls": "nginx asks by HTTP/1.0 over TLS: a stream has no framing but the end of the connection then, and a "
        "reset counts as one. A response that the server has cut looks complete.",
    }
    fixes = {
        "http2": "Give answers a Content-Length where it is known, and let streams say that they are done; a client "
        "that has not seen the mark has not got everything.",
        "tls": "Ask by HTTP/1.1.",
    }
    lines = {"http2": ("event: done",), "tls": ("proxy_http_version 1.1;", 'proxy_set_header Connection "";')}
    for proxy in facts.proxies:
        for one in proxy.hidden_cuts:
            yield Finding("cut-hidden", Severity.NOTE, one.where, texts[one.how], fixes[one.how], lines[one.how])


def stream_headers(facts: Facts) -> Iterator[Finding]:
    """What an event stream should say to caches and proxies."""
    one = facts.probe
    if one is None or not one.streams or not one.events:
        return
    cache = one.headers.get("cache-control", "").lower()
    lines = []
    if "no-cache" not in cache and "no-store" not in cache:
        lines.append("Cache-Control: no-cache")
    if not facts.proxies and one.headers.get("x-accel-buffering", "").strip().lower() != "no":
        lines.append("X-Accel-Buffering: no")
    if lines:
        text = (
            f"The event stream of GET {one.path} lacks {' and '.join(lines)}: what stands in between may keep it back."
        )
        yield Finding("stream-headers", Severity.NOTE, one.path, text, "Send it with the stream.", tuple(lines))
