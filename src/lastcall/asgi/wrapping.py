"""What the server puts around an application, in its order: static files outside, compression inside.

So a static file is never compressed on the way: it has been before (``app.js.gz``), or it goes out by ``sendfile``.
"""

from __future__ import annotations

from lastcall.base.options import AppOptions
from lastcall.base.types import ASGIApp


def wrap(app: ASGIApp, options: AppOptions) -> ASGIApp:
    """Return ``app`` with what ``options`` ask for. Raises ConfigError where a directory cannot be served."""
    if options.compress:
        from lastcall.asgi.compress import Compressing  # noqa: PLC0415 - only for those who compress

        app = Compressing(app)
    if options.static:
        from lastcall.asgi.static import StaticFiles  # noqa: PLC0415 - needs an extra

        app = StaticFiles(app, options.static)
    return app
