"""Pictures of every staff page: `python -m tests.screenshots [DIR]`, by default into deploy/screenshots.

PAGE-LANGUAGE-THEME-DEVICE.png, with fixed data at a fixed moment, so that a picture changes when its page does. They
are for people who review or write about the pages; small, since they may be kept beside the code.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, cast

from PIL import Image
from playwright.sync_api import sync_playwright

from receiver.observability import configure_logging
from tests.web.console.views import VIEWS, serve_samples

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.web.console.views import Sample, View

LANGUAGES = ("en", "zh-CN")
THEMES = ("light", "dark")
DEVICES = {"desktop": (1280, 800), "phone": (360, 740)}
_COLOURS, _COLOURS_LOOKED_AT, _APART = 40, 1500, 10
# A page that differs by a word is no picture of its own.
PICTURED = (
    "login",
    "second-factor-new",
    "home",
    "found-delivered",
    "found-waiting",
    "found-resends",
    "found-nothing",
    "messages",
    "message",
    "replies",
    "reports",
    "exports",
    "pushes",
    "push-quarantined",
    "status",
    "status-silent",
    "status-away",
    "setup",
    "users",
    "keys-made",
    "advice",
    "audit",
    "account",
    "problem-missing",
)


def main() -> int:
    """Take them."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("deploy/screenshots"))
    parser.add_argument("--page", action="append", choices=[view.name for view in VIEWS], help="these pages only")
    given = parser.parse_args()
    path = os.environ.get("RECEIVER_TEST_CHROMIUM") or shutil.which("chromium")
    if not path:
        print("no Chromium: install it, or name it in RECEIVER_TEST_CHROMIUM", file=sys.stderr)
        return 1
    configure_logging()
    given.directory.mkdir(parents=True, exist_ok=True)
    wanted = [view for view in VIEWS if view.name in (given.page or PICTURED)]
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    taken = size = 0
    with serve_samples() as samples, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        for language, theme, device in product(LANGUAGES, THEMES, DEVICES):
            for name, picture in _take(browser, samples, wanted, language, theme, device):
                small = _small(picture)
                (given.directory / f"{name}-{language}-{theme}-{device}.png").write_bytes(small)
                taken, size = taken + 1, size + len(small)
        browser.close()
    print(f"{taken} pictures in {given.directory}, {size / 1_000_000:.1f} MB")
    return 0


def _take(
    browser: Browser, samples: dict[str, Sample], views: list[View], language: str, theme: str, device: str
) -> list[tuple[str, bytes]]:
    width, height = DEVICES[device]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        locale=language,
        reduced_motion="reduce",
    )
    page = context.new_page()
    taken = []
    for view in views:
        view.open(page, samples)
        page.mouse.move(0, 0)
        taken.append((view.name, page.screenshot(caret="hide", animations="disabled")))
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
