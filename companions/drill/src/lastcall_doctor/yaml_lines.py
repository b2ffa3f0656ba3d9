"""YAML as plain Python values that remember their lines. PyYAML is the extra ``yaml`` of lastcall-drill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lastcall_doctor.errors import DoctorError
from lastcall_doctor.facts import UnreadableError

if TYPE_CHECKING:
    import yaml

MISSING_YAML = "--manifest needs PyYAML: pip install PyYAML"
DEEPEST = 200


class Block(dict[Any, Any]):
    """A mapping of a document. ``line`` is where it begins, ``lines`` where each of its values does."""

    line: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[Any, int] = {}


class Document:
    """One file of YAML, to be asked for values of a type, with errors that name file and line."""

    def __init__(self, file: str) -> None:
        self.file = file

    def refuse(self, line: int | None, what: str) -> UnreadableError:
        """The error for what stands at ``line``."""
        return UnreadableError(self.file, line, what)

    def mapping(self, parent: Block, key: str) -> Block:
        """``parent[key]``, an empty mapping if it is missing or null. Raises :class:`UnreadableError`."""
        value = parent.get(key)
        if value is None:
            empty = Block()
            empty.line = parent.line
            return empty
        if not isinstance(value, Block):
            raise self.refuse(parent.lines.get(key), f"{key} has to be a mapping, not {_shown(value)}")
        return value

    def mappings(self, parent: Block, key: str) -> list[Block]:
        """``parent[key]``, a list of mappings, empty if it is missing. Raises :class:`UnreadableError`."""
        value = parent.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(one, Block) for one in value):
            raise self.refuse(parent.lines.get(key), f"{key} has to be a list of mappings, not {_shown(value)}")
        return value

    def text(self, parent: Block, key: str, default: str = "") -> str:
        """``parent[key]`` as text: a scalar. Raises :class:`UnreadableError`."""
        value = parent.get(key)
        if value is None:
            return default
        if isinstance(value, list | dict):
            raise self.refuse(parent.lines.get(key), f"{key} has to be text, not {_shown(value)}")
        return str(value)

    def words(self, parent: Block, key: str) -> list[str]:
        """``parent[key]`` as a list of texts, empty if it is missing. Raises :class:`UnreadableError`."""
        value = parent.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or any(isinstance(one, list | dict) for one in value):
            raise self.refuse(parent.lines.get(key), f"{key} has to be a list of texts, not {_shown(value)}")
        return ["" if one is None else str(one) for one in value]


def documents(text: str, file: str) -> Iterator[Block]:
    """The documents of ``text`` that are mappings. Raises :class:`UnreadableError`, DoctorError without PyYAML."""
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError:
        raise DoctorError(MISSING_YAML) from None
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            value = _Builder(file).build(node) if node is not None else None
            if isinstance(value, Block):
                yield value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; render templates first (helm template)" if "{{" in text else ""
        problem = (error.problem or "no YAML").strip()
        raise UnreadableError(file, mark.line + 1 if mark else None, f"this is not YAML: {problem}{hint}") from None
    except (yaml.YAMLError, RecursionError) as error:
        first = str(error).strip().partition("\n")[0] or "nested too deeply"
        raise UnreadableError(file, None, f"this is not YAML: {first}") from None


class _Builder:
    """Turns nodes into values. An alias gives the same value again; one inside of itself is refused."""

    def __init__(self, file: str) -> None:
        import yaml  # noqa: PLC0415

        self._yaml = yaml
        self._scalars = yaml.SafeLoader("")
        self._file = file
        self._made: dict[int, Any] = {}
        self._open: set[int] = set()

    def build(self, node: yaml.Node, depth: int = 0) -> Any:
        if id(node) in self._made:
            return self._made[id(node)]
        line = node.start_mark.line + 1
        if id(node) in self._open:
            raise UnreadableError(self._file, line, "an alias stands inside of what it names")
        if depth > DEEPEST:
            raise UnreadableError(self._file, line, "this is nested too deeply")
        self._open.add(id(node))
        value = self._value(node, line, depth + 1)
        self._open.discard(id(node))
        self._made[id(node)] = value
        return value

    def _value(self, node: yaml.Node, line: int, depth: int) -> Any:
        if isinstance(node, self._yaml.SequenceNode):
            return [self.build(one, depth) for one in node.value]
        if isinstance(node, self._yaml.MappingNode):
            return self._mapping(node, line, depth)
        try:
            return self._scalars.construct_object(node)
        except (self._yaml.YAMLError, ValueError, OverflowError):
            return str(node.value)  # a tag of somebody's own: what it says is all that is known

    def _mapping(self, node: yaml.MappingNode, line: int, depth: int) -> Block:
        made, own = Block(), Block()
        made.line = line
        for key_node, value_node in node.value:
            value = self.build(value_node, depth)
            if key_node.tag == "tag:yaml.org,2002:merge":
                for merged in reversed(value if isinstance(value, list) else [value]):
                    if isinstance(merged, Block):
                        made.update(merged)
                        made.lines.update(merged.lines)
                continue
            key = self.build(key_node, depth)
            if isinstance(key, list | dict):
                raise UnreadableError(self._file, key_node.start_mark.line + 1, "a key has to be text")
            own[key] = value
            own.lines[key] = value_node.start_mark.line + 1
        made.update(own)  # a mapping's own values win over what it merges, wherever that stands
        made.lines.update(own.lines)
        return made


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)
