"""The tests that a page names as proof of what it says."""

from __future__ import annotations

import ast
import re
from functools import cache

from testing.pages import ROOT

NAME = re.compile(r"`((?:companions/\w+/)?tests/[\w/]+\.py)::(\w+)`")
"""A test in a table: its file, and its name in that."""


@cache
def names_in(path: str) -> set[str]:
    """The names of the tests in a file: functions, and what is called Test…"""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name.lower().startswith("test"):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {one.id for one in node.targets if isinstance(one, ast.Name) and one.id.startswith("Test")}
    return found
