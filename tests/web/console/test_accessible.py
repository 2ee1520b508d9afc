"""Every staff page in every dress, held to WCAG 2.2 AA and to its width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.browser import DESKTOP, PHONE, assert_accessible, assert_fits
from tests.web.console.views import VIEWS, serve_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext

    from tests.harness.browser import Guard
    from tests.web.console.views import Sample

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def samples() -> Iterator[dict[str, Sample]]:
    with serve_samples() as made:
        yield made


# Every pair of language, theme and width is among these; all eight would take twice as long and say no more.
@pytest.mark.parametrize(
    ("locale", "dark", "width"),
    [("en", False, DESKTOP), ("en", True, PHONE), ("zh-CN", False, PHONE), ("zh-CN", True, DESKTOP)],
    ids=["en-light-desktop", "en-dark-phone", "zh-light-phone", "zh-dark-desktop"],
)
def test_every_page_is_accessible_and_fits(
    samples: dict[str, Sample],
    open_context: Callable[..., tuple[BrowserContext, Guard]],
    locale: str,
    dark: bool,
    width: int,
) -> None:
    problems = []
    for site, sample in samples.items():
        context, guard = open_context(sample.origin, width=width, dark=dark, locale=locale)
        page = context.new_page()
        for view in (view for view in VIEWS if view.site == site):
            guard.allow(f"the server responded with a status of {view.status} ")
            view.open(page, samples)
            assert page.locator("html").get_attribute("lang") == locale, view.name
            page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
            for check in (assert_accessible, assert_fits):
                try:
                    check(page)
                except AssertionError as error:
                    problems.append(f"{view.name}: {error}")
    assert problems == [], "\n".join(problems)
