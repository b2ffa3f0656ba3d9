"""``lastcall migrate -- fastapi run|dev …``: it finds the application by itself, which a command line has to name."""

from __future__ import annotations

import ast
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from lastcall.cli.translation import Flag, Translation, read_words

GUESSES: Final = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")
"""Where fastapi looks for the application, in this order."""

_FLAGS: Final = {
    "--host": Flag("host"),
    "--port": Flag("port"),
    "--root-path": Flag("root_path"),
    "--workers": Flag("workers"),
    "--forwarded-allow-ips": Flag("forwarded_allow_ips"),
    "--reload-dir": Flag("reload_dirs"),
    "--app": Flag("app"),
    "--entrypoint": Flag("entrypoint"),
    "-e": Flag("entrypoint"),
    "--reload": Flag("reload", False),
    "--no-reload": Flag("reload", False),
    "--verbose": Flag("verbose", False),
    "-v": Flag("verbose", False),
    "--proxy-headers": Flag("proxy_headers", False),
    "--no-proxy-headers": Flag("no proxy headers", False),
}
_OWN: Final = ("app", "entrypoint", "reload", "verbose")


def from_fastapi(words: Sequence[str]) -> Translation:
    """Translate the words behind ``fastapi``. Looks at the files of the current directory, and imports none.

    Raises UsageError for what is not understood.
    """
    made = Translation()
    plain: list[str] = []
    own: dict[str, str] = {}
    for written, flag, value in read_words(words, _FLAGS, "fastapi"):
        if flag is None:
            plain.append(written)
        elif flag.name in _OWN:
            own[flag.name] = value or written
        elif flag.name == "no proxy headers":
            made.keep("proxy_headers", False)
        else:
            made.keep(flag.name, value if flag.takes_value else True, written=written)
    command, path = [*plain, "", ""][:2]
    if command not in ("run", "dev"):
        raise click.UsageError(f"only fastapi run and fastapi dev start a server, not fastapi {command}".rstrip())
    if len(plain) > 2:
        raise click.UsageError(f"fastapi serves one application: {path!r}, and then {plain[2]!r}")
    if own.get("reload", "--reload" if command == "dev" else "") == "--reload":
        made.keep("reload", written="--reload" if "reload" in own else "the reloading of fastapi dev")
    _address(made, command)
    entrypoint = own.get("entrypoint", "")
    if entrypoint and (path or "app" in own):
        raise click.UsageError("fastapi takes no path and no --app beside --entrypoint")
    if not (path or "app" in own or entrypoint):
        entrypoint = _configured()
    if entrypoint:
        made.app = entrypoint
    else:
        _find(made, path, own.get("app", ""))
    return made


def _address(made: Translation, command: str) -> None:
    if "host" not in made.settled and command == "run":
        made.keep("host", "0.0.0.0")
        made.notes.append("fastapi run listens on all addresses: hence --host 0.0.0.0; lastcall's own is 127.0.0.1.")
    if "port" not in made.settled:
        made.notes.append("fastapi takes its port from $PORT where that is set; lastcall does with --port $PORT.")


def _configured() -> str:
    """``[tool.fastapi] entrypoint`` in pyproject.toml, or nothing."""
    try:
        found = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["fastapi"]["entrypoint"]
    except (OSError, KeyError, TypeError, ValueError):
        return ""
    return found if isinstance(found, str) else ""


def _find(made: Translation, given: str, name: str) -> None:
    """The module and the attribute that fastapi would take, and the directory to import from."""
    path = Path(given) if given else next((Path(guess) for guess in GUESSES if Path(guess).is_file()), None)
    if path is None:
        raise click.UsageError(f"fastapi would find no application here: looked for {', '.join(GUESSES)}")
    if path.is_dir():
        path = path / "__init__.py"
    if not path.is_file():
        raise click.UsageError(f"{path} is no file: lastcall migrate has to look into it")
    module = path.resolve().parent if path.name == "__init__.py" else path.resolve()
    parts, directory = [module.stem], module.parent
    while (directory / "__init__.py").is_file():
        parts.insert(0, directory.name)
        directory = directory.parent
    made.app = f"{'.'.join(parts)}:{name or _attribute(path)}"
    if directory != Path.cwd():
        made.keep("app_dir", os.path.relpath(directory))


def _attribute(path: Path) -> str:
    """The name that holds the FastAPI application: ``app``, ``api``, or the only one there is."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from None
    names: list[str] = []
    made: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            names += [alias.asname or alias.name for alias in node.names]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            targets, value = [node.target.id], node.value
        elif isinstance(node, ast.Assign):
            targets, value = [target.id for target in node.targets if isinstance(target, ast.Name)], node.value
        else:
            continue
        names += targets
        if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "FastAPI":
            made += targets
    for candidates in (made, names):
        for wanted in ("app", "api"):
            if wanted in candidates:
                return wanted
    if not made:
        raise click.UsageError(f"{path} has no application that can be seen without running it: name it with --app")
    return made[0]
