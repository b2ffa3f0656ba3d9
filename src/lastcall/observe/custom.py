"""``--log-config``: a file or a dictionary for stdlib's ``logging.config``, checked and applied."""

from __future__ import annotations

import json
import logging
import logging.config
import os
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path
from typing import IO, Any

from lastcall.base.errors import ConfigError
from lastcall.observe.logs import AccessFormatter, DefaultFormatter


def apply(config: object, use_colors: bool | None) -> None:
    """Apply a custom configuration; raise ConfigError for whatever is wrong with it."""
    shown = config if isinstance(config, str | os.PathLike) else f"<{type(config).__name__}>"
    try:
        content = _read(config)
        if isinstance(content, dict):
            logging.config.dictConfig(_with_colors(content, use_colors))
            _hint(content)
        else:
            logging.config.fileConfig(content, disable_existing_loggers=False, encoding="utf-8")
    except ConfigError:
        raise
    except Exception as exc:  # logging.config raises whatever the values, or the classes named there, lead to
        reason = " ".join(f"{exc}: {exc.__cause__}".split() if exc.__cause__ else str(exc).split())
        reason = reason or type(exc).__name__
        raise ConfigError("--log-config", shown, f"a configuration that logging.config accepts ({reason})") from exc


def _read(config: object) -> dict[str, Any] | str | RawConfigParser | IO[str]:
    """Return a dictionary for ``dictConfig``, or else what ``fileConfig`` takes."""
    if isinstance(config, RawConfigParser) or hasattr(config, "readline"):
        return config  # type: ignore[return-value]
    if not isinstance(config, str | os.PathLike):
        if isinstance(config, Mapping):
            return dict(config)
        raise ConfigError("--log-config", config, "the path of a file, or a dictionary")
    path = Path(config)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise ConfigError("--log-config", str(config), f"a file that can be read ({reason})") from exc
    suffix = path.suffix.lower()
    if suffix == ".json":
        content = _parse_json(str(config), text)
    elif suffix in (".yaml", ".yml"):
        content = _parse_yaml(str(config), text)
    else:
        return str(path)
    if not isinstance(content, dict):
        raise ConfigError("--log-config", str(config), "a mapping at the top of the file")
    return content


def _parse_json(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise ConfigError("--log-config", name, f"valid JSON ({exc})") from exc


def _parse_yaml(name: str, text: str) -> object:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise ConfigError("--log-config", name, "PyYAML to be installed: pip install 'lastcall[yaml]'") from exc
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError("--log-config", name, f"valid YAML ({' '.join(str(exc).split())})") from exc


def _with_colors(config: dict[str, Any], use_colors: bool | None) -> dict[str, Any]:
    """Hand ``--use-colors`` on to those formatters of ours that leave it open."""
    formatters = config.get("formatters")
    if use_colors is None or not isinstance(formatters, Mapping):
        return config
    classes = (DefaultFormatter, AccessFormatter)
    ours = {*classes, *(f"{cls.__module__}.{cls.__qualname__}" for cls in classes)}
    formatters = {
        name: {**spec, "use_colors": use_colors}
        if isinstance(spec, Mapping) and spec.get("()") in ours and spec.get("use_colors") is None
        else spec
        for name, spec in formatters.items()
    }
    return {**config, "formatters": formatters}


def _hint(content: dict[str, Any]) -> None:
    """Say why nothing comes out of a configuration that was written for uvicorn."""
    names = [str(name) for name in content.get("loggers") or ()]
    if any(name.split(".")[0] == "uvicorn" for name in names) and not any(n.startswith("lastcall") for n in names):
        logging.getLogger("lastcall.error").warning(
            "The log configuration names uvicorn's loggers; lastcall's are lastcall, lastcall.error and lastcall.access"
        )
