"""``module:attribute``, the name of an application: read, or refused with what it should have been."""

from __future__ import annotations

import os

from lastcall.config.kinds import UnusableValueError


def split_import_string(name: str) -> tuple[str, str]:
    """Return the dotted names of the module and of the attribute. Raises :class:`UnusableValueError`."""
    module, colon, attribute = name.strip().partition(":")
    if module.endswith(".py") or "/" in module or os.sep in module:
        raise UnusableValueError(f"a module and not a file, as in {_suggest_for_file(module, attribute or 'app')}")
    likely = "main:app"
    if not colon and module:
        parent, dot, last = module.rpartition(".")
        likely = f"{parent}:{last}" if dot and last in ("app", "application", "api") else f"{module}:app"
    elif module and not attribute:
        likely = f"{module}:app"
    elif attribute and not module:
        likely = f"main:{attribute}"
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise UnusableValueError(f"module:attribute, for example {likely}")
    return module, attribute


def _suggest_for_file(path: str, attribute: str) -> str:
    from pathlib import Path  # noqa: PLC0415 - needed for an error message only

    parts = list(Path(path).parts)
    folder = ""
    if Path(path).is_absolute() or ".." in parts:
        folder = f" --app-dir {Path(path).parent}"
        parts = parts[-1:]
    module = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
    return f"{module}:{attribute}{folder}"
