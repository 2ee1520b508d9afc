"""The pictures that pages of the documentation show: `python -m tests.screenshots [DIR]`, into deploy/docs/images.

NAME-LANGUAGE.png, with fixed data at a fixed moment, so that a picture changes when its page does. They are small,
since they lie beside the code and in the wheel.
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from PIL import Image
from playwright.sync_api import sync_playwright

from receiver.observability import configure_logging
from tests.harness.browser import launch
from tests.web.console.views import VIEWS, serve_samples

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.web.console.views import Sample

LANGUAGES = ("en", "zh-CN")
_COLOURS, _COLOURS_LOOKED_AT, _APART = 40, 1500, 10


@dataclass(frozen=True, slots=True)
class Picture:
    """A view as it is pictured."""

    view: str
    size: tuple[int, int] = (1280, 800)
    dark: bool = False


# By name. tests/docs/test_library.py holds that pages show each of them, and no other.
PICTURES = {
    "look-up-waiting": Picture("found-waiting"),
    "look-up-phone": Picture("found-delivered", size=(360, 740), dark=True),
    "message": Picture("message"),
    "reports": Picture("reports"),
    "setup": Picture("setup"),
    "status": Picture("status"),
}


def main() -> int:
    """Take them."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("deploy/docs/images"))
    parser.add_argument("--name", action="append", choices=list(PICTURES), help="these alone")
    given = parser.parse_args()
    configure_logging()
    given.directory.mkdir(parents=True, exist_ok=True)
    taken = size = 0
    with serve_samples() as samples, sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except FileNotFoundError as none:
            print(none, file=sys.stderr)
            return 1
        for name in given.name or PICTURES:
            for language in LANGUAGES:
                small = _small(_take(browser, samples, PICTURES[name], language))
                (given.directory / f"{name}-{language}.png").write_bytes(small)
                taken, size = taken + 1, size + len(small)
        browser.close()
    print(f"{taken} pictures in {given.directory}, {size / 1_000_000:.1f} MB")
    return 0


def _take(browser: Browser, samples: dict[str, Sample], picture: Picture, language: str) -> bytes:
    width, height = picture.size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if picture.dark else "light",
        locale=language,
        reduced_motion="reduce",
    )
    page = context.new_page()
    (view,) = (view for view in VIEWS if view.name == picture.view)
    view.open(page, samples)
    page.mouse.move(0, 0)
    taken = page.screenshot(caret="hide", animations="disabled")
    context.close()
    return taken


def _small(picture: bytes) -> bytes:
    """Write a picture with a palette of its most frequent colours, none of which is nearly another.

    The usual ways to make a palette weigh colours by their area, and the thin lines of charts come out all alike.
    """
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    counted = cast("list[tuple[int, tuple[int, int, int]]]", image.getcolors(1 << 24))
    found = sorted(counted, reverse=True)[:_COLOURS_LOOKED_AT]
    palette: list[tuple[int, int, int]] = []
    for _, colour in found:
        if all(sum((a - b) ** 2 for a, b in zip(colour, other, strict=True)) > _APART**2 for other in palette):
            palette.append(colour)
            if len(palette) == _COLOURS:
                break
    of_palette = Image.new("P", (1, 1))
    of_palette.putpalette([part for colour in palette for part in colour])
    out = io.BytesIO()
    image.quantize(len(palette), palette=of_palette, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
