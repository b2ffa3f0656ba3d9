"""A new card and its application, to be filled in. As it stands it can be loaded, and claims nothing that was seen."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Final

from lastcall_drill.cards.loader import ID, ID_WORDS, CardError

_SERVER: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

_CARD: Final = Template("""\
# A fix card; docs/reference/drill-cards.md describes every field, step and observation.
# Prove it with: lastcall-drill verify $id.toml

format = 1
id = "$id"
title = "What goes wrong, in one line"
summary = "What the user sees, and why it happens."
server = "$server"
affected = "the releases that have it"
fixed = "the first release that does not, or: none"
sources = ["a link to the issue"]

# What a log shows of it. `text` is a plain text, `pattern` a pattern; confidence is high, medium or low.
[[signature]]
text = "the line as the server writes it"
confidence = "low"

# What mends it; or, in place of these tables and above the first one: fix = "none known"
[[fix]]
title = "Upgrade"
changes = ["release"] # some of: release, options, app, python
how = "What to do."
not-when = "When this is the wrong thing to do."

# The runs that prove it. role is broken, fixed, or still-broken (what looks like a fix, and is none).
[[run]]
role = "broken"
title = "$server 1.0"
requirements = ["$server==1.0"]
app = "$app"

[[run]]
role = "fixed"
title = "$server 2.0"
requirements = ["$server==2.0"]
app = "$app"

[reproduction]
command = ["$server", "app:app", "--port", "{port}"]
deadline = 30
step = [
    { do = "start" },
    { do = "request", client = "client", path = "/" },
    { do = "read-until", client = "client", pattern = "hello" },
    { do = "signal", signal = "SIGTERM" },
    { do = "wait-exit", within = 8 },
]
# The failure is shown if all of these hold,
failure = [
    { see = "exit.not-within", seconds = 7.9 },
]
# and it is not if all of these do.
healthy = [
    { see = "exit.within", seconds = 5 },
    { see = "output.matches", pattern = "app: shutdown" },
]
""")

_APP: Final = '''\
"""The application of the reproduction: as small as it can be, standard library only."""


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("app: startup", flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("app: shutdown", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"hello\\n"})
'''


def scaffold(name: str, directory: Path, server: str) -> list[Path]:
    """Write ``NAME.toml`` and its application into a directory, and return both paths.

    Raises CardError for a name that is no id, a server that is no name, or if a file is there already, and OSError if
    it cannot be written.
    """
    card = directory / f"{name}.toml"
    if not ID.fullmatch(name):
        raise CardError(card, "id", ID_WORDS, name)
    if not _SERVER.fullmatch(server):
        raise CardError(card, "server", "the name of a distribution such as uvicorn", server)
    app = directory / f"{name.replace('-', '_')}.py"
    for path in (card, app):
        if path.exists():
            raise CardError(path, "", "no such file: a new card does not overwrite one")
    app.write_text(_APP, "utf-8")
    card.write_text(_CARD.substitute(id=name, server=server, app=app.name), "utf-8")
    return [card, app]
