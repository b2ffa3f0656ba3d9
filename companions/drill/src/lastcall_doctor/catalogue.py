"""The findings that the doctor can make: one row each, from which the reference page is made."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from lastcall_drill.record import Record


class Severity(Enum):
    """How bad it is."""

    ERROR = "error"  # requests or clean-up will be lost, or the server will not run
    WARNING = "warning"  # something will be lost in a case that is not rare
    NOTE = "note"  # worth knowing


class Entry(Record):
    """What the reference says of a finding: when it is made, and what mends it."""

    group: str
    severities: tuple[Severity, ...]
    found: str
    mend: str


class Finding(Record):
    """One problem. ``where`` is the file, or the deployment in it; ``text`` says what is wrong, with the figures.

    ``fix`` is what to do, in words; ``lines`` are what to write, exactly.
    """

    id: str
    severity: Severity
    where: str
    text: str
    fix: str
    lines: tuple[str, ...] = ()


_ERROR: Final = (Severity.ERROR,)
_WARNING: Final = (Severity.WARNING,)
_NOTE: Final = (Severity.NOTE,)
_EITHER: Final = (Severity.ERROR, Severity.WARNING)

GROUPS: Final = {
    "The stop": "From the options, and a unit or manifest.",
    "The host": "From the unit or manifest, and the machine that the doctor runs on.",
    "The application": "It is started and stopped, where it is named on the doctor's command line.",
    "The proxy": "From `--lb-idle`, `--proxy FILE` and `--probe PATH`.",
}

CATALOGUE: Final[Mapping[str, Entry]] = {
    # -- the stop ------------------------------------------------------------------------------------------------
    "stop-timeout": Entry(
        "The stop",
        _EITHER,
        "The longest stop, and a `preStop` sleep before it, take longer than `TimeoutStopSec` (90 s), "
        "`terminationGracePeriodSeconds` (30 s), `stop_grace_period` (10 s), `stopTimeout` of ECS (30 s), "
        "`kill_timeout` of Fly (5 s) or `stopwaitsecs` of supervisord (10 s). A warning: less than 1 s is left.",
        "Raise that timer, or lower `--timeout-graceful-shutdown`",
    ),
    "stop-unbounded": Entry(
        "The stop",
        _WARNING,
        "A budget of the stop is `none`, so that one request can keep the process for ever.",
        "Give it a number of seconds",
    ),
    "stop-signal": Entry(
        "The stop",
        _EITHER,
        "The server is stopped by another signal than SIGTERM: by a setting, or by a command (`ExecStop=/bin/kill "
        "-KILL …`, a `preStop` hook). Fly sends SIGINT by default. A warning: SIGINT, which is a Ctrl-C to lastcall; "
        "any but SIGKILL for another server.",
        "`KillSignal=SIGTERM`, `stop_signal: SIGTERM`, `ExecStop=`",
    ),
    "shell-in-front": Entry(
        "The stop",
        _EITHER,
        "`sh -c` starts the server without `exec`, so the signal goes to the shell. A warning: under systemd with "
        "`KillMode=control-group`, where the server gets it too; and bash, which may step aside by itself.",
        "Name the command without a shell, or write `exec lastcall …`",
    ),
    "kill-mode": Entry(
        "The stop",
        (Severity.ERROR, Severity.WARNING, Severity.NOTE),
        "`KillMode` is `none` (no signal at all), `process` (what the application has started stays behind), or "
        "`control-group` (what the application has started gets the signal at the same moment: a note).",
        "`KillMode=mixed`",
    ),
    "drain-delay": Entry(
        "The stop",
        _WARNING,
        "Under Kubernetes, with neither `--drain-delay` nor a `preStop` sleep: connections are refused that are sent "
        "before the endpoints have changed.",
        "`--drain-delay 5` (another server: a `preStop` sleep), and a longer `terminationGracePeriodSeconds`",
    ),
    # -- the host ------------------------------------------------------------------------------------------------
    "command-refused": Entry(
        "The host",
        _ERROR,
        "lastcall would not start with the options of this command.",
        "Correct the option that is named",
    ),
    "command-unread": Entry(
        "The host",
        _NOTE,
        "The command has variables that the file does not set.",
        "Give those options to the doctor itself",
    ),
    "no-server": Entry(
        "The host",
        _WARNING,
        "No command in this file starts a server that is known, so there is nothing to judge.",
        "Name the file that starts it",
    ),
    "server-unknown": Entry(
        "The host",
        _NOTE,
        "The options of this server are not known, are in a file of its own, or need an installed lastcall to be read: "
        "only the deployment is judged.",
        "Look at the options yourself; install lastcall",
    ),
    "service-type": Entry(
        "The host",
        _ERROR,
        "`Type=` waits for what the server does not do (`forking`, `oneshot`; `notify` with another server than "
        "lastcall and gunicorn), or `WatchdogSec` for messages that it does not send (another than lastcall).",
        "`Type=exec`, without `WatchdogSec`",
    ),
    "restart": Entry(
        "The host",
        _WARNING,
        "The unit would not start the server again after a crash, or after `--limit-max-requests`, which without a "
        "parent ends with 0.",
        "`Restart=on-failure`, `Restart=always`",
    ),
    "readiness": Entry(
        "The host",
        _WARNING,
        "A container without `readinessProbe`, or one that asks `PREFIX/live`, which never says no.",
        "`--health-path /-` and a probe of `/-/ready`",
    ),
    "loopback": Entry(
        "The host",
        _ERROR,
        "The server of a container listens on 127.0.0.1, where nobody outside of it can reach it.",
        "`--host 0.0.0.0`",
    ),
    "descriptors": Entry(
        "The host",
        _EITHER,
        "The soft limit of descriptors, less the 64 that lastcall leaves free, is lower than `--limit-connections` or "
        "`--limit-concurrency`. A warning: it is below 1024.",
        "`LimitNOFILE=65536`, `ulimit -n 65536`",
    ),
    "backlog": Entry(
        "The host",
        _WARNING,
        "The kernel's `net.core.somaxconn` cuts `--backlog` short.",
        "`net.core.somaxconn = 2048` in `/etc/sysctl.d`",
    ),
    "missing-extra": Entry(
        "The host",
        _ERROR,
        "An option needs a package that is not installed: `--loop uvloop`, `--env-file`, `--log-config FILE.yaml`.",
        "`pip install 'lastcall[uvloop]'`",
    ),
    "missing-modules": Entry(
        "The host",
        _ERROR,
        "Compiled modules of lastcall are missing in this Python.",
        "Install lastcall again, for this Python",
    ),
    "portable-driver": Entry(
        "The host",
        _NOTE,
        "`--driver asyncio`, where the compiled reactor would run and is faster. uvloop is never missing: the default "
        "loop is as fast under the reactor.",
        "`--driver auto`",
    ),
    "debug-python": Entry(
        "The host",
        _WARNING,
        "Python runs in a debug mode (`-X dev`, `PYTHONDEVMODE`, `PYTHONASYNCIODEBUG`, `PYTHONMALLOC=debug`), "
        "several times slower.",
        "Leave it out",
    ),
    "no-effect": Entry(
        "The host",
        _NOTE,
        "An option or variable is accepted but does nothing in this release.",
        "Leave it out",
    ),
    # -- the application -----------------------------------------------------------------------------------------
    "start-failed": Entry(
        "The application",
        _ERROR,
        "The application could not be imported, its `lifespan.startup` failed, or it was not ready after 30 s.",
        "What the message says",
    ),
    "stop-failed": Entry(
        "The application",
        _ERROR,
        "With nothing to do, the application did not stop cleanly: its `lifespan.shutdown` failed or took too long, "
        "or it left threads or tasks behind.",
        "End in `lifespan.shutdown` what was started",
    ),
    "lifespan-off": Entry(
        "The application",
        _WARNING,
        "`--lifespan off`: the application's own start-up and shutdown never run.",
        "`--lifespan auto`",
    ),
    "lifespan-missing": Entry(
        "The application",
        (Severity.WARNING, Severity.NOTE),
        "The application has no lifespan, so nothing of it is closed at a stop: a note. A warning if its lifespan "
        "raised, which may have been a start-up that failed.",
        "A lifespan handler; `--lifespan on`",
    ),
    "handler-replaced": Entry(
        "The application",
        _WARNING,
        "The application has replaced the signal handlers, so that lastcall may not hear of a stop.",
        "Take `signal.signal()` out; use `lastcall.drain_notice()`",
    ),
    # -- the proxy -----------------------------------------------------------------------------------------------
    "keep-alive": Entry(
        "The proxy",
        _ERROR,
        "The server closes idle connections no later than the balancer does, which then sends a request into a "
        "connection that is being closed: now and then a 502.",
        "`--timeout-keep-alive` (`--keep-alive`) above the balancer's",
    ),
    "stream-goes-on": Entry(
        "The proxy",
        _ERROR,
        "The task of the probed path still ran when its client had left and `--timeout-disconnect` was over.",
        "Let CancelledError through; ask whether the client is there",
    ),
    "stream-ends-late": Entry(
        "The proxy",
        _NOTE,
        "The task of the probed path did not notice that its client had left: it ended when lastcall cancelled it. "
        "Another server would have left it running.",
        "Wait for `http.disconnect` beside the queue",
    ),
    "probe-unusable": Entry(
        "The proxy",
        (Severity.WARNING, Severity.NOTE),
        "The probed path did not answer, or not with 200. A note: its answer was complete at once, and no stream.",
        "Name the path of a stream",
    ),
    "proxy-buffering": Entry(
        "The proxy",
        _EITHER,
        "nginx keeps the probed stream back until its buffers are full. A warning, without a probe: no location "
        "switches that off.",
        "`proxy_buffering off;`, or the header `X-Accel-Buffering: no`",
    ),
    "proxy-read-timeout": Entry(
        "The proxy",
        _NOTE,
        "The proxy cuts a stream that is silent for 60 s or less.",
        "`proxy_read_timeout 1h;`, `timeout server 1h`, or a heartbeat",
    ),
    "proxy-keep-alive": Entry(
        "The proxy",
        _WARNING,
        "nginx has `keepalive` for these servers, but does not say what lets connections be used again (the "
        "default since nginx 1.29.7).",
        '`proxy_http_version 1.1;` and `proxy_set_header Connection "";`',
    ),
    "cut-hidden": Entry(
        "The proxy",
        _NOTE,
        "A response that the server has cut looks complete to its client: HAProxy offers HTTP/2 (`alpn h2`, "
        "`proto h2`, or `ssl` without `alpn`, the default since 2.8), or nginx asks by HTTP/1.0 over TLS.",
        "A Content-Length, or an end mark (`event: done`); `proxy_http_version 1.1;`",
    ),
    "stream-headers": Entry(
        "The proxy",
        _NOTE,
        "The probed event stream lacks `Cache-Control: no-cache`, or `X-Accel-Buffering: no` where no proxy's "
        "configuration was given.",
        "Add the header",
    ),
}
