"""What the application did when it was started, left by its clients, and stopped. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lastcall_doctor.catalogue import Finding, Severity
from lastcall_doctor.facts import Facts, Probe, Start

CLOSING_LINES = (
    "@contextlib.asynccontextmanager",
    "async def lifespan(app):",
    "    yield",
    "    # close here what was opened",
)
_BAD_ENDS = {
    "failed": "its lifespan.shutdown failed",
    "timed out": "its lifespan.shutdown did not complete in time",
    "abandoned": "its lifespan task did not end when it was cancelled",
    "died while serving": "its lifespan task raised while the server was serving",
}


def start(facts: Facts) -> Iterator[Finding]:
    """Whether the application starts, and stops again."""
    one = facts.start
    if one is None:
        return
    if not one.ready:
        text = f"The application did not start: {one.error}."
        fix = "Correct that; the server would end with exit code 3."
        yield Finding("start-failed", Severity.ERROR, one.app, text, fix, (f"lastcall {one.app}",))
        return
    if one.replaced:
        text = f"The application has replaced the handler of {one.replaced}: lastcall may not hear that it has to stop."
        fix = "Take signal.signal() and loop.add_signal_handler() out, and ask lastcall."
        yield Finding(
            "handler-replaced", Severity.WARNING, one.app, text, fix, ("await lastcall.drain_notice().wait()",)
        )
    stuck = facts.probe is not None and facts.probe.running > 0
    reason = _why_not_stopped(one)
    if reason and not (stuck and one.lifespan not in _BAD_ENDS):
        text = f"With nothing to do, the application did not stop cleanly: {reason.rstrip('.')}."
        fix = "End in lifespan.shutdown what was started, and let it take less than --timeout-lifespan-shutdown."
        yield Finding("stop-failed", Severity.ERROR, one.app, text, fix)


def _why_not_stopped(one: Start) -> str:
    left = f" (left behind: {', '.join(one.left)})" if one.left else ""
    if one.exit_code is None:
        return "it had to be killed"
    if one.lifespan in _BAD_ENDS:
        return f"{_BAD_ENDS[one.lifespan]} (exit code {one.exit_code})"
    if one.exit_code == 0:
        return ""
    if one.exit_code == 5:
        return f"threads or tasks of it went on, and were abandoned (exit code 5){left}"
    return f"it ended with exit code {one.exit_code}{left}; its last line was: {one.error}"


def lifespan(facts: Facts) -> Iterator[Finding]:
    """Whether the application is told of start and stop."""
    for server in facts.servers:
        if server.lifespan == "off" and not server.refused:
            text = "--lifespan off: the application's own start-up and shutdown do not run."
            fix = "Let them run, where the application has them."
            yield Finding("lifespan-off", Severity.WARNING, server.where, text, fix, ("--lifespan auto",))
    one = facts.start
    if one is None or one.lifespan != "unsupported":
        return
    if one.raised:
        text = (
            "The application's lifespan call raised before lifespan.startup.complete, so that it is served without: "
            "if that was a start-up that failed, nobody will notice."
        )
        fix = "Make it an error."
        yield Finding("lifespan-missing", Severity.WARNING, one.app, text, fix, ("--lifespan on",))
    else:
        text = "The application does not support lifespan: nothing of it is closed at a stop."
        fix = "Give it a lifespan handler, if it holds connections, files or tasks."
        yield Finding("lifespan-missing", Severity.NOTE, one.app, text, fix, CLOSING_LINES)


def probe(facts: Facts) -> Iterator[Finding]:
    """Whether the probed task ends when its client leaves."""
    one = facts.probe
    if one is None:
        return
    if not one.began or one.status != 200:
        what = f"answered {one.status}" if one.began else "did not begin to answer within 5 s"
        text = f"GET {one.path} {what}, so nothing can be said of it."
        yield Finding(
            "probe-unusable", Severity.WARNING, one.path, text, "Name the path of a stream.", (_again(facts),)
        )
    elif one.complete:
        text = f"The answer to GET {one.path} was complete at once: there is no stream to leave."
        yield Finding("probe-unusable", Severity.NOTE, one.path, text, "Name the path of a stream.", (_again(facts),))
    else:
        yield from _after_leaving(one, facts)


def _again(facts: Facts) -> str:
    return f"lastcall doctor {facts.start.app if facts.start else 'module:app'} --probe /PATH"


def _after_leaving(one: Probe, facts: Facts) -> Iterator[Finding]:
    limit = facts.own.disconnect if facts.own is not None else math.inf
    if one.running >= 2:
        if limit == math.inf:
            text = f"The task of GET {one.path} still ran {one.early:g} s after its client had left: nothing ends it."
            fix = "Let lastcall cancel it, and let CancelledError through."
            yield Finding(
                "stream-goes-on", Severity.ERROR, one.path, text, fix, ("--timeout-disconnect 3", *_noticing())
            )
            return
        over = f"{limit:g} s after that lastcall cancels it"
        text = f"The task of GET {one.path} still ran {one.early:g} s after its client had left" + (
            f", although {over}: it swallows CancelledError, or blocks." if limit < one.early else f"; {over}."
        )
        fix = "Do not catch CancelledError (or BaseException) without raising it again, and do not block."
        yield Finding("stream-goes-on", Severity.ERROR, one.path, text, fix, ("except asyncio.CancelledError: raise",))
    elif one.running == 1 and one.late < limit < math.inf:
        text = (
            f"The task of GET {one.path} did not notice that its client had left: it ended only when lastcall "
            f"cancelled it, {limit:g} s later. Under another server it goes on."
        )
        fix = "Look now and then whether the client is still there, or send a heartbeat."
        yield Finding("stream-ends-late", Severity.NOTE, one.path, text, fix, _noticing())


def _noticing() -> tuple[str, ...]:
    return ("if await request.is_disconnected(): return",)
