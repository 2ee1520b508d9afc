"""What every application compiles anew: its templates, its rules, its statements. A run of tests compiles them once.

A test has an application of its own, and hundreds of tests made it wait for this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from jinja2 import BytecodeCache
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule

from receiver.db.encryption.columns import cipher_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import CodeType

    from jinja2.bccache import Bucket


class CompiledTemplates(BytecodeCache):
    """Jinja's cache of compiled templates, in memory."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key, bucket.checksum] = bucket.code


def share_compiled() -> None:
    """Let every application of this process take what an earlier one has compiled."""
    Flask.jinja_options = {**Flask.jinja_options, "bytecode_cache": CompiledTemplates()}
    compile_builder = Rule._compile_builder
    built: dict[Hashable, Callable[..., tuple[str, str]]] = {}

    def compile_once(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        # All that it reads; the function is bound to its rule, and finds its converters there.
        if rule.defaults:
            return compile_builder(rule, append_unknown)
        key = (rule.rule, tuple(rule._trace), append_unknown)
        if key not in built:
            built[key] = compile_builder(rule, append_unknown)
        return built[key]

    setattr(Rule, "_compile_builder", compile_once)  # noqa: B010
    _share_statements()


def _share_statements() -> None:
    """Let every engine take the statements that another of its kind has compiled.

    SQLAlchemy finds them by statement and dialect. With encrypted columns a statement holds its dialect's cipher.
    """
    statements: LRUCache[object, object] = LRUCache(4000)

    def is_like(one: DefaultDialect, other: object) -> bool:
        return one is other or (
            isinstance(other, DefaultDialect)
            and _kind_of(one) == _kind_of(other)
            and cipher_of(one) is None is cipher_of(other)
        )

    setattr(Engine, "_compiled_cache", property(lambda _: statements, lambda _engine, _own: None))  # noqa: B010
    setattr(DefaultDialect, "__eq__", is_like)  # noqa: B010
    setattr(DefaultDialect, "__hash__", lambda dialect: hash(type(dialect)))  # noqa: B010


def _kind_of(dialect: DefaultDialect) -> tuple[object, ...]:
    return type(dialect), dialect.dbapi, dialect.server_version_info, dialect.paramstyle
