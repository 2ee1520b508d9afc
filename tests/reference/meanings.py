"""What stands in the code below each field of a class, or each value of an enum."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def meanings(table: type) -> Mapping[str, str]:
    """Return the text below each field or value, by its name in the code."""
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(table))).body
    assert isinstance(found, ast.ClassDef)
    return {
        name: " ".join(below.value.value.split())
        for row, below in pairwise(found.body)
        if (name := _name_of(row))
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def _name_of(row: ast.stmt) -> str:
    targets = row.targets if isinstance(row, ast.Assign) else [row.target] if isinstance(row, ast.AnnAssign) else []
    return targets[0].id if targets and isinstance(targets[0], ast.Name) else ""
