"""A run as a drill of five servers in ten scenarios finds it: made-up figures in the shapes of real ones."""

from __future__ import annotations

from collections.abc import Callable

from lastcall_drill.verdicts import Basis, Moment, Result, Run, ScenarioInfo, ServerInfo, Source, Verdict

PASS, FAIL, UNSUPPORTED, ERROR, UNREACHED = Verdict
DRILL, CLIENT, APP, PROCESS = Source

SERVERS = (
    ServerInfo("lastcall", "lastcall", "0.1.0", "lastcall subject:app --port 41213 --grace 3", "3.13.0"),
    ServerInfo("uvicorn==0.21.1", "uvicorn", "0.21.1", "uvicorn subject:app --port 41214", "3.11.2"),
    ServerInfo(
        "uvicorn", "uvicorn", "0.54.0", "uvicorn subject:app --port 41215 --timeout-graceful-shutdown 3", "3.13.0"
    ),
    ServerInfo("hypercorn", "hypercorn", "0.18.0", "hypercorn subject:app -b 127.0.0.1:41216", "3.13.0"),
    ServerInfo(
        "granian", "granian", "2.8.7", "granian --interface asgi subject:app --workers-kill-timeout 3", "3.13.0"
    ),
)


def _scenario(name: str, group: str, title: str, clause: str, reason: str) -> ScenarioInfo:
    return ScenarioInfo(
        id=name,
        title=title,
        group=group,
        clause=clause,
        reason=reason,
        rule="The process has ended by itself within the grace period of 3 s, and the client saw what the clause asks.",
        tolerance="0.5 s on the time to the exit, scaled",
        sources=("Kludex/uvicorn#451", "https://asgi.readthedocs.io/", "ASGI lifespan 2.0, shutdown"),
        basis=Basis.VIEW,
    )


SCENARIOS = (
    _scenario(
        "endless-stream-ends",
        "Streams",
        "An endless stream does not keep the server from stopping",
        "A server that was told to stop ends streams that would never end, at the latest after its grace period.",
        "One browser tab with an event source open is enough to keep the process until it is killed; "
        "what it wanted to save at shutdown is lost.",
    ),
    _scenario(
        "finite-stream-finishes",
        "Streams",
        "A stream that ends within the grace period is sent to its end",
        "Answers that were begun before the signal are finished if they can be within the grace period.",
        "A cut answer is work and money lost, and clients often cannot tell it from a whole one.",
    ),
    _scenario(
        "no-early-disconnect",
        "Streams",
        "The application is not told of a disconnect while its client is there",
        "http.disconnect says that the client has left. It is not a notice of a stop.",
        "Frameworks cancel the answer when they see it, so a stream that had time left is cut.",
    ),
    _scenario(
        "idle-exit",
        "Plain requests",
        "Without work, the server exits at once",
        "An idle server exits within half a second of SIGTERM.",
        "Each deploy waits for it, times the number of instances.",
    ),
    _scenario(
        "request-in-flight",
        "Plain requests",
        "A request in flight is answered",
        "A request whose head was read before the signal is answered.",
        "A 502 for each deploy is seen by people.",
    ),
    _scenario(
        "keepalive-closed",
        "Plain requests",
        "Idle kept-alive connections are closed with a FIN",
        "Idle connections are closed at the signal, orderly, so that the client opens a new one elsewhere.",
        "A reset that races with a request is an error the client may not retry.",
    ),
    _scenario(
        "lifespan-after-tasks",
        "Lifespan",
        "lifespan.shutdown runs after the requests' tasks have ended",
        "What lifespan.shutdown closes is not used any more when it runs.",
        "A pool that is closed under a running request turns a clean stop into errors.",
    ),
    _scenario(
        "second-signal",
        "Lifespan",
        "A second signal does not skip lifespan.shutdown",
        "A second SIGTERM or SIGINT may shorten the wait, never the shutdown of the application.",
        "People press Ctrl-C twice; supervisors send signals twice.",
    ),
    _scenario(
        "websocket-close-frame",
        "WebSockets",
        "WebSockets are closed with a close frame",
        "A WebSocket is closed with 1012 or 1001, not by ending the connection (1006).",
        "Clients take 1006 for a network failure and wait longer before they come back.",
    ),
    _scenario(
        "workers-reaped",
        "Workers",
        "No worker outlives its parent",
        "When the parent has exited, its workers have.",
        "A worker that stays keeps the port, and the next start fails.",
    ),
)


def _start(pid: int) -> list[Moment]:
    return [
        Moment(-1.412, PROCESS, "start", "", f"pid {pid}"),
        Moment(-1.003, APP, "lifespan-startup"),
        Moment(-0.981, PROCESS, "ready", "", "accepts connections"),
        Moment(-0.611, CLIENT, "connect", "stream"),
        Moment(-0.609, CLIENT, "request", "stream", "GET /inf"),
        Moment(-0.602, APP, "request", "GET /inf"),
        *(Moment(-0.6 + 0.2 * n, CLIENT, "bytes", "stream", "14 bytes") for n in range(3)),
        Moment(0.0, DRILL, "signal", "", f"SIGTERM to {pid}"),
    ]


def _clean(pid: int) -> list[Moment]:
    return [
        *_start(pid),
        Moment(0.001, APP, "notice", "GET /inf", "lastcall.drain: draining"),
        Moment(0.002, APP, "task-end", "GET /inf"),
        Moment(0.003, CLIENT, "bytes", "stream", "5 bytes: the end of the body"),
        Moment(0.004, CLIENT, "fin", "stream"),
        Moment(0.005, APP, "lifespan-shutdown"),
        Moment(0.007, APP, "lifespan-end"),
        Moment(0.034, PROCESS, "exit", "", "code 0"),
    ]


def _hang(pid: int) -> list[Moment]:
    return [
        *_start(pid),
        *(Moment(0.2 * n, CLIENT, "bytes", "stream", "14 bytes") for n in range(1, 60)),
        Moment(0.004, PROCESS, "output", "stderr", "Waiting for connections to close. (CTRL+C to force quit)"),
        Moment(12.0, PROCESS, "killed", "", "the drill's deadline: SIGKILL to the session"),
        Moment(12.003, CLIENT, "rst", "stream"),
    ]


def _deadline(pid: int) -> list[Moment]:
    return [
        *_start(pid),
        Moment(3.001, APP, "cancel", "GET /inf"),
        Moment(3.002, APP, "disconnect", "GET /inf"),
        Moment(3.002, APP, "task-end", "GET /inf"),
        Moment(3.003, CLIENT, "rst", "stream"),
        Moment(3.004, APP, "lifespan-shutdown"),
        Moment(3.006, APP, "lifespan-end"),
        Moment(3.051, PROCESS, "exit", "", "code 143"),
    ]


Shape = Callable[[int], list[Moment]]
SHAPES: dict[str, tuple[Shape, str, int | None]] = {
    "clean": (_clean, "The stream ended at its next chunk, lifespan.shutdown ran, and the process exited.", 0),
    "hang": (
        _hang,
        "The process was still there 12 s after SIGTERM, waiting for the stream; lifespan.shutdown did not run.",
        None,
    ),
    "deadline": (_deadline, "The stream was cancelled after the grace period; the connection was reset.", 143),
}
OUTPUT = """\
INFO:     Started server process [4242]
INFO:     Waiting for application startup.
INFO:     Application startup complete.
\x1b[32mINFO\x1b[0m:     Uvicorn running on http://127.0.0.1:41214 (Press CTRL+C to quit)
INFO:     127.0.0.1:51122 - "GET /inf HTTP/1.1" 200 OK
INFO:     Shutting down
INFO:     Waiting for connections to close. (CTRL+C to force quit)
"""

# A letter for each scenario: pass, fail, unsupported, error, (r)etried and passed, (n)ot run.
VERDICTS = {
    "lastcall": "ppppppppuu",
    "uvicorn==0.21.1": "fpppppffpp",
    "uvicorn": "pprpppffpp",
    "hypercorn": "fprpfpppfp",
    "granian": "fpuppfpufe",
}


def _result(server: str, scenario: str, letter: str, number: int) -> Result:
    pid = 4200 + number
    if letter == "u":
        sentence = "This server speaks no WebSocket yet." if "web" in scenario else "It has no such feature yet."
        return Result(scenario, server, UNSUPPORTED, sentence, seconds=0.01, expected=UNSUPPORTED)
    if letter == "e":
        sentence = "The server did not start: it accepted no connection within 10 s."
        moments = [Moment(-10.0, PROCESS, "start", "", f"pid {pid}"), Moment(-0.2, PROCESS, "killed", "", "SIGKILL")]
        return Result(scenario, server, ERROR, sentence, moments, 2, 21.4, None, PASS, "ImportError: no module\n")
    shape, sentence, code = SHAPES[
        "clean" if letter in "pr" and number % 3 else "hang" if letter == "f" and number % 2 else "deadline"
    ]
    moments = shape(pid)
    return Result(
        scenario,
        server,
        FAIL if letter == "f" else PASS,
        sentence,
        tuple(moments),
        tries=2 if letter in "fr" else 1,
        seconds=moments[-1].at + 1.5,
        exit_code=code,
        expected=PASS if (server, scenario) == ("hypercorn", "request-in-flight") else FAIL if letter == "f" else PASS,
        output=OUTPUT,
    )


def run() -> Run:
    """Ten scenarios on five servers: every verdict, a retry, a verdict that is not as recorded."""
    results = [
        _result(server, scenario.id, letter, 10 * column + number + 1)
        for column, (server, letters) in enumerate(VERDICTS.items())
        for number, (scenario, letter) in enumerate(zip(SCENARIOS, letters, strict=True))
    ]
    return Run(
        date="2026-11-22T20:40:00Z",
        machine="Linux 6.1, 2 cores, Debian 12",
        scale=1.0,
        servers=SERVERS,
        scenarios=SCENARIOS,
        results=tuple(results),
    )


HOSTILE = (
    "<script>alert(1)</script></style></title>\"'&<!-- ]]> | `x` [a](javascript:alert(1)) "
    "\x00\x1b[31m\ud800\u202e\uffff\r\n\t"
)


def hostile() -> Run:
    """A run whose every text wants to break out of the report."""
    moments = (Moment(0.0, DRILL, "signal", HOSTILE, HOSTILE), Moment(0.1, APP, HOSTILE, HOSTILE, HOSTILE))
    scenario = ScenarioInfo(
        HOSTILE,
        HOSTILE,
        HOSTILE,
        HOSTILE,
        HOSTILE,
        HOSTILE,
        HOSTILE,
        sources=(HOSTILE, "javascript:alert(1)", f"https://a.test/{HOSTILE}"),
    )
    result = Result(HOSTILE, HOSTILE, FAIL, HOSTILE, moments, 2, 1.0, 1, PASS, HOSTILE * 2)
    return Run(HOSTILE, HOSTILE, 1.0, (ServerInfo(*[HOSTILE] * 5),), (scenario,), (result,))
