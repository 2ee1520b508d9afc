"""README, tutorials and how-tos do what they say: each is followed from top to bottom, as a newcomer pastes it.

`python -m tests.docs PAGE…` does the same, and names what is not run.
"""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest

from tests.docs.blocks import ROOT, read_page
from tests.docs.pages import PAGES
from tests.docs.run import Run, Shared, run_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_AT_ONCE = 3  # a page waits for its programs more than half of the time
_FENCE = re.compile(r"^\s*```", re.MULTILINE)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, shared: Shared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Path], Run]]:
    """Follow all pages that this run of tests is about, some at a time; a test takes the outcome of its own."""
    asked = [page for item in request.session.items if (page := _page_to_follow(item))]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        coming: dict[Path, Future[Run]] = {
            page: pool.submit(run_page, page, tmp_path_factory.mktemp("page") / "run", shared) for page in asked
        }
        yield lambda page: coming[page].result()


def _page_to_follow(item: pytest.Item) -> Path | None:
    if isinstance(item, pytest.Function) and item.originalname == test_page_does_what_it_says.__name__:
        return cast("Path", item.callspec.params["page"])
    return None


@pages
def test_page_does_what_it_says(page: Path, runs: Callable[[Path], Run]) -> None:
    run = runs(page)
    assert run.failures == [], "\n\n".join(run.failures)
    assert run.ran + len(run.not_run) == len(read_page(page).blocks)


@pages
def test_no_block_is_passed_over(page: Path) -> None:
    blocks = read_page(page).blocks
    assert len(blocks) == len(_FENCE.findall(page.read_text(encoding="utf-8"))) / 2
    for block in blocks:
        if block.not_run.startswith("not run"):
            assert len(block.not_run.split()) >= 4, f"line {block.line}: {block.not_run}: that is no reason"
