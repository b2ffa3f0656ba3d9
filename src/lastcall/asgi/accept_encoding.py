"""Which content coding a client gets (RFC 9110 12.5.3). Pure: text in, a name out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

# RFC 9110 12.4.2: a weight has at most three digits behind its point. 5.6.3: spaces and tabs around ";" alone.
_ITEM: Final = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*"
)
_OLD_NAMES: Final = {"x-gzip": "gzip"}  # RFC 9110 8.4.1.3


def weights(values: Iterable[str]) -> dict[str, int] | None:
    """The weights, in thousandths, that the lines of Accept-Encoding give; None where there is no such line.

    What does not follow the grammar is left out, as if the client had not said it. A coding that is named twice has
    the lower of its weights.
    """
    found: dict[str, int] | None = None
    for value in values:
        found = {} if found is None else found
        for item in value.split(","):
            match = _ITEM.fullmatch(item)
            if match is None:
                continue
            name = match[1].lower()
            name = _OLD_NAMES.get(name, name)
            weight = round(float(match[2] or 1) * 1000)
            found[name] = min(weight, found.get(name, weight))
    return found


def choose(values: Iterable[str], offered: Sequence[str]) -> str:
    """The coding of ``offered`` (best first) that the client likes most; "" is none at all.

    Equal weights are ours to decide. A client that likes ``identity`` more than every coding gets that; one that does
    not mention it would rather have a coding. Nobody is refused: where nothing fits, the answer goes out as it is.
    """
    found = weights(values)
    if not found:
        return ""
    others = found.get("*", 0)
    best, best_weight = "", max(found.get("identity", 0), 1)
    for coding in offered:
        weight = found.get(coding, others)
        if weight > best_weight or (weight == best_weight and not best):
            best, best_weight = coding, weight
    return best
