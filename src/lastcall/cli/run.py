"""``run()``, and the way from a configuration to an exit code that it shares with the command.

Exit codes: 0 stopped as asked · 1 unexpected error · 2 usage or configuration · 3 start-up failed · 4 and 5 are the
server's own findings about its stop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Unpack

from lastcall.base.errors import ConfigError, StartupError
from lastcall.base.types import ASGIApp
from lastcall.config import Config, ConfigKeywords

CONFIG_ERROR = 2


def run(app: ASGIApp | Callable[..., Any] | str, **options: Unpack[ConfigKeywords]) -> None:
    """Serve ``app`` until the process is told to stop, then return.

    ``app`` and the keywords are those of :class:`lastcall.Config`. Owns the process while it runs: event loop, signal
    handlers, teardown. Raises ``SystemExit`` with the exit code when that is not 0; errors of configuration (2) and
    start-up (3) are one line on stderr.
    """
    code = serve(lambda: Config(app, **options))
    if code != 0:
        raise SystemExit(code)


def serve(configure: Callable[[], Config]) -> int:
    """Make the configuration, run the server, return the exit code. The known errors are told in one line on stderr."""
    try:
        config = configure()
        # Here and not above: `lastcall --help` and a wrong option need not wait for the server to be imported.
        from lastcall.server.process import run_process  # noqa: PLC0415

        return run_process(config)
    except ConfigError as error:
        complain(error)
        return CONFIG_ERROR
    except StartupError as error:
        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        # Ctrl-C before the server has installed its own handlers: a stop as asked.
        return 0


def complain(error: Exception) -> None:
    """Write ``Error: …`` to stderr. One line, but for a failed import, whose message holds the traceback."""
    with suppress(OSError):
        print("Error:", error, file=sys.stderr, flush=True)
