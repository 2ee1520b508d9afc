"""The defences of this project: how each is taken away, and the test that then fails.

`defences.toml` has a table of them for each part; its name is the part's title:

    is        what is defended, in words
    function  where it stands, as MODULE:FUNCTION or MODULE:CLASS.FUNCTION
    constant  instead of `function`: MODULE:NAME, a constant of the module
    instead   what the function does without the defence: plain statements in place of its body, which may call
              `original`, the function as it is (a method is given `self`); for a constant, another value
    test      what must fail then, as FILE::FUNCTION
    only      which of its cases are run, as pytest's -k

They name functions, not text of the program, so that what a function holds may be written anew.
`python -m tests.mutations` takes them away one by one. Nothing here imports what is mutated.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TABLE = Path(__file__).with_name("defences.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Defence:
    """A defence, what stands in its place once it is taken away, and the test that must fail then."""

    part: str
    words: str
    place: str
    is_constant: bool
    instead: str
    test: str
    only: str | None

    @property
    def file(self) -> str:
        """The file in which it stands, from the project's root."""
        path = self.place.partition(":")[0].replace(".", "/")
        return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def load() -> list[Defence]:
    """Return every defence in the order of the table."""
    parts = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [
        Defence(
            part=part,
            words=row["is"],
            place=row.get("function") or row["constant"],
            is_constant="constant" in row,
            instead=row["instead"],
            test=row["test"],
            only=row.get("only"),
        )
        for part, rows in parts.items()
        for row in rows
    ]


def take_away(defence: Defence, root: Path) -> str:
    """Return the text of the defence's file without it. Raises ValueError if it is not where the table says."""
    tree = parse(defence.file, root)
    scope: ast.AST = tree
    for name in defence.place.partition(":")[2].split("."):
        scope = _find(scope, name, defence.file)
    if isinstance(scope, ast.FunctionDef) and not defence.is_constant:
        _replace_body(scope, defence.instead)
    elif isinstance(scope, ast.Assign | ast.AnnAssign) and defence.is_constant:
        scope.value = ast.parse(defence.instead, mode="eval").body
    else:
        raise ValueError(f"{defence.place} is not a {'constant' if defence.is_constant else 'function'}")
    return ast.unparse(ast.fix_missing_locations(tree))


def require_test(defence: Defence, root: Path) -> None:
    """Raise ValueError if its test is not there."""
    file, _, name = defence.test.partition("::")
    _find(parse(file, root), name, file)


def parse(file: str, root: Path) -> ast.Module:
    """Return what a file holds. Raises ValueError if there is no such file."""
    try:
        return ast.parse((root / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no {file}; {TABLE.name} names it: was it moved?") from None


def _find(scope: ast.AST, name: str, file: str) -> ast.stmt:
    for node in getattr(scope, "body", ()):
        if name in _names_of(node):
            assert isinstance(node, ast.stmt)
            return node
    raise ValueError(f"{file} has no {name}; {TABLE.name} names it: was it renamed?")


def _names_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _replace_body(function: ast.FunctionDef, instead: str) -> None:
    original = ast.parse("def original(): ...").body[0]
    assert isinstance(original, ast.FunctionDef)
    original.args, original.body = function.args, function.body
    function.body = [original, *ast.parse(instead).body]
