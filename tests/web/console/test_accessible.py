"""Every staff page in every dress, held to WCAG 2.2 AA, to its width and to its layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.browser import PHONE, TABLET, WIDE, assert_accessible, assert_fits, assert_laid_out
from tests.web.console.views import VIEWS, serve_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext

    from tests.harness.browser import Guard
    from tests.web.console.views import Sample

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def samples() -> Iterator[dict[str, Sample]]:
    with serve_samples() as made:
        yield made


# Every pair of language, theme and width is among these; all twelve would take twice as long and say no more.
@pytest.mark.parametrize(
    ("locale", "dark", "width"),
    [
        ("en", False, PHONE),
        ("en", True, TABLET),
        ("en", False, WIDE),
        ("zh-CN", True, PHONE),
        ("zh-CN", False, TABLET),
        ("zh-CN", True, WIDE),
    ],
)
def test_every_page_is_accessible_fits_and_keeps_its_layout(
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
            page.evaluate("document.querySelectorAll('details:not(.menu)').forEach(details => { details.open = true })")
            for check in (assert_accessible, assert_fits, assert_laid_out):
                try:
                    check(page)
                except AssertionError as error:
                    problems.append(f"{view.name}: {error}")
        # An open menu lies over the page, so it is looked at by itself.
        for menu in page.locator("details.menu").all():
            page.evaluate("document.querySelectorAll('details.menu').forEach(details => { details.open = false })")
            menu.evaluate("details => { details.open = true }")
            assert_accessible(page, within=".bar")
    assert problems == [], "\n".join(problems)
