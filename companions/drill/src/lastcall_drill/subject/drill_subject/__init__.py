"""The application that is judged.

Servers import it in environments of their own, old ones included: it needs the standard library only, and CPython 3.8.
It writes what it sees to the file ``$DRILL_EVENTS``, a line ``TIME WHAT WHO DETAIL`` each.
"""

from .routes import app

__all__ = ["app"]
