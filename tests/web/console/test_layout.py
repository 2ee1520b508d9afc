"""Staff pages with the longest and oddest content: nothing wraps, overlaps or spills, and no page is heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.browser import PHONE, WIDE, assert_fits, assert_laid_out
from tests.web.console.views import VIEWS, serve_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext

    from tests.harness.browser import Guard
    from tests.web.console.views import Sample

_MOST_BYTES = 60_000
_LISTS = ("messages", "replies", "pushes", "audit")
# The others, widths and themes: test_accessible.py.
_SAMPLE = {
    "hostile": ("hostile-messages", "hostile-replies", "hostile-pushes", "hostile-webhooks", "hostile-audit"),
    "usual": ("docs", "docs-found", "document", "runbook"),
}


@pytest.fixture(scope="module")
def samples() -> Iterator[dict[str, Sample]]:
    with serve_samples() as made:
        yield made


@pytest.mark.parametrize("width", [PHONE, WIDE])
@pytest.mark.parametrize("site", _SAMPLE)
def test_lists_of_hostile_content_and_pages_of_the_documentation_keep_their_layout(
    samples: dict[str, Sample], open_context: Callable[..., tuple[BrowserContext, Guard]], site: str, width: int
) -> None:
    context, _ = open_context(samples[site].origin, width=width, locale="zh-CN")
    page = context.new_page()
    for view in VIEWS:
        if view.name in _SAMPLE[site]:
            view.open(page, samples)
            assert_fits(page)
            assert_laid_out(page)


# Replies of 300 characters are 45 kB by themselves.
@pytest.mark.parametrize(("site", "names"), [("usual", _LISTS), ("hostile", ("messages", "pushes", "audit"))])
def test_no_list_of_fifty_rows_is_heavy(
    samples: dict[str, Sample],
    open_context: Callable[..., tuple[BrowserContext, Guard]],
    site: str,
    names: tuple[str, ...],
) -> None:
    context, _ = open_context(samples[site].origin)
    samples[site].enter(context, "wang.li")
    for name in names:
        answer = context.request.get(f"/console/{name}")
        assert answer.ok
        assert len(answer.body()) <= _MOST_BYTES, name


@pytest.mark.parametrize(("width", "shown"), [(PHONE, False), (WIDE, True)])
def test_fields_of_a_list_are_a_tap_away_on_phones_only(
    samples: dict[str, Sample], open_context: Callable[..., tuple[BrowserContext, Guard]], width: int, shown: bool
) -> None:
    context, _ = open_context(samples["usual"].origin, width=width, locale="en")
    samples["usual"].enter(context, "wang.li")
    page = context.new_page()
    for name in ("messages", "replies", "pushes"):
        page.goto(f"/console/{name}")
        field, heading = page.locator("form.filters [name=task_id]"), page.get_by_text("Filters", exact=True)
        assert (field.is_visible(), heading.is_visible()) == (shown, not shown)
        if not shown:
            heading.click()
            assert field.is_visible()
