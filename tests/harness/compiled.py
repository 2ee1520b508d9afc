"""What every application compiles anew from the same text (its templates, its rules), compiled once for a run of tests.

A test has an application of its own, and hundreds of tests made it wait for this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from jinja2 import BytecodeCache
from werkzeug.routing import Rule

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
