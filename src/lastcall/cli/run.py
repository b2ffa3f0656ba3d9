"""``run()``, and the way from a configuration to an exit code that it shares with the command.

Exit codes: 0 stopped as asked · 1 unexpected error · 2 usage or configuration, found before anything was bound or the
application imported · 3 start-up failed after that · 4 to 6 are the server's own findings about its stop.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Unpack

from lastcall.base.errors import ConfigError, LastcallError, StartupError
from lastcall.base.exit_code import ExitCode
from lastcall.base.types import ASGIApp
from lastcall.config import Config
from lastcall.config.directory import enter_directory

if TYPE_CHECKING:
    from lastcall.config.keywords import ConfigKeywords


def run(app: ASGIApp | Callable[..., Any] | str, **options: Unpack[ConfigKeywords]) -> None:
    """Serve ``app`` until the process is told to stop, then return.

    ``app`` and the keywords are those of :class:`lastcall.Config`. Owns the process while it runs: event loop, signal
    handlers, teardown. Raises ``SystemExit`` with the exit code when that is not 0; errors of configuration (2) and
    start-up (3) are one line on stderr. Raises RuntimeError in a running event loop (there, ``await Server.serve()``),
    and while another call serves in this process.
    """

    def configure() -> Config:
        if (directory := options.get("chdir")) is not None:
            options["chdir"] = enter_directory(directory, "chdir")
        return Config(app, **options)

    code = serve(configure, final=False)
    if code != 0:
        raise SystemExit(code)


def serve(configure: Callable[[], Config], *, final: bool = True) -> int:
    """Make the configuration, run the server, return the exit code. The known errors are told in one line on stderr.

    ``final``: the caller ends the process next, so that signal handlers and watchdog stay to see to its end.
    """
    try:
        config = configure()
        run_it: Callable[..., int]
        with collector_waits(freeze=final and config.options.gc_freeze):
            # Here and not above: `lastcall --help` and a wrong option need not wait for the server to be imported.
            if config.options.workers.supervised:
                with without_tls(wanted=final):
                    from lastcall.supervisor.process import run_supervisor as run_it  # noqa: PLC0415
            else:
                from lastcall.server.process import run_process as run_it  # noqa: PLC0415
        return run_it(config, tell=tell, final=final)
    except LastcallError as error:
        return tell(error)
    except KeyboardInterrupt:
        # Ctrl-C before the server has installed its own handlers: a stop as asked.
        return 0


@contextmanager
def collector_waits(*, freeze: bool) -> Iterator[None]:
    """Keep the garbage collector from walking through what an import makes, again and again: almost none is garbage.

    ``freeze``: nor does it walk through that later (``gc.freeze``). Without garbage there is nothing to collect first,
    and with our own modules out of the way, what is collected before serving is only what the application made. Both
    together are an eighth of the time to the first answer.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if freeze:
            gc.freeze()
    finally:
        if enabled:
            gc.enable()


@contextmanager
def without_tls(*, wanted: bool) -> Iterator[None]:
    """Have ``asyncio``, when it is imported meanwhile, believe that there is no ``ssl``: it can do without.

    A parent speaks to unix sockets only, and keeps 4 MiB less so. ``wanted``: nothing comes later in this process that
    might miss it.
    """
    if not wanted or "asyncio" in sys.modules or "ssl" in sys.modules:
        yield
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["ssl"]


def tell(error: LastcallError) -> int:
    """Write ``Error: …`` to stderr and return the exit code.

    It is one line for each thing that is wrong; that of a failed import is followed by the traceback.
    """
    lines = error.errors if isinstance(error, ConfigError) else (error,)
    with suppress(OSError):
        for line in lines:
            print("Error:", line, file=sys.stderr, flush=True)
    return error.exit_code if isinstance(error, StartupError) else ExitCode.USAGE
