"""The tree of pages: found in a wheel or in a checkout, read in a language, and followed from link to link."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from receiver.core import NotFound
from receiver.docs.page import Kind, parse_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from receiver.docs.page import Document

ALARMS_INDEX = "runbook/index"
_INSIDE_WHEEL = Path(__file__).parent / "files"
_ROOT = _INSIDE_WHEEL if _INSIDE_WHEEL.is_dir() else Path(__file__).parents[2]
# From the root, as in the repository: so are the links between the pages.
_PAGES = PurePosixPath("deploy/docs")
_FRONT_PAGE = PurePosixPath("README.md")
_IMAGES = "images/"
_TRANSLATED = ("zh-CN",)
_INDEXES = ("index", "README")
_LINK = re.compile(r"\]\(([^)#\s]+\.md)[)#]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a link leads: a page or an image, and a heading of the page."""

    path: str
    anchor: str = ""

    def __str__(self) -> str:
        return f"{self.path}#{self.anchor}" if self.anchor else self.path


class Library:
    """The pages below a folder with the shape of the repository. They are read once. Safe for many threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._parsed: dict[tuple[str, str], Document] = {}

    def list_pages(self, language: str) -> list[Document]:
        """Return the pages, by kind and in the order of the index page."""
        pages = [self.read(path, language) for path in self._paths if path != "index"]
        kinds, last = list(Kind), len(self._order)
        return sorted(pages, key=lambda page: (kinds.index(page.kind), self._order.get(page.path, last), page.path))

    def read(self, path: str, language: str) -> Document:
        """Return a page in a language, in English if it has no other. Raises NotFound."""
        if path not in self._paths:
            raise NotFound(f"no page {path}")
        sources = self._paths[path]
        found = language if language in sources else next(iter(sources))
        if (path, found) not in self._parsed:
            source = sources[found]
            text = (self._root / source).read_text(encoding="utf-8")
            self._parsed[path, found] = parse_document(text, path=path, language=found, source=source)
        return self._parsed[path, found]

    def resolve(self, given: str) -> Place:
        """Return the page that a reader means: by its path or the end of it, with or without .md, by alarm or by title.

        Raises NotFound, which names the nearest pages, or those that it may be.
        """
        wanted = given.strip("/").removesuffix(".md").removesuffix("/index") or "index"
        for path in (wanted, *(f"{wanted}/{index}" for index in _INDEXES)):
            if path in self._paths:
                return Place(path)
        for alarm, place in self._headings.items():
            if alarm.lower() == wanted.replace("_", "").lower():
                return place
        ends = [path for path in self._paths if path.lower().endswith(f"/{wanted.lower()}")]
        ends = ends or self._titles.get(given.strip().lower(), [])
        if len(ends) == 1:
            return Place(ends[0])
        if ends:
            raise NotFound(f"several pages are named {given}: {', '.join(ends)}")
        names = {name: path for path in self._paths for name in (path, path.rpartition("/")[2])}
        names |= {heading: heading for heading in self._headings}
        near = dict.fromkeys(names[name] for name in get_close_matches(wanted, names, n=3))
        raise NotFound(f"no page {given}" + (f"; did you mean {' or '.join(near)}?" if near else ""))

    def find_alarm(self, heading: str) -> Place:
        """Return the section of the runbook about an alarm, by the alarm's heading; the runbook's index without one."""
        return self._headings.get(heading, Place(ALARMS_INDEX))

    def follow(self, page: Document, link: str) -> Place | None:
        """Return where a relative link of a page leads; None if that is no page and no image of this documentation."""
        target, _, anchor = unquote(link).partition("#")
        if ":" in target or target.startswith("/"):
            return None
        if not target:
            return Place(page.path, anchor)
        path = self._path_of(PurePosixPath(posixpath.normpath(page.source.parent / target)))
        return Place(path, anchor) if path in self._paths or self.find_image(path) else None

    def find_image(self, path: str) -> Path | None:
        """Return the file of an image, by its address; None if there is none."""
        return self._images.get(path)

    @cached_property
    def _paths(self) -> Mapping[str, Mapping[str, PurePosixPath]]:
        """Address of each page: language, with English first, to file."""
        found: dict[str, dict[str, PurePosixPath]] = {}
        files = sorted((self._root / _PAGES).rglob("*.md"))
        sources = [_FRONT_PAGE, *(PurePosixPath(file.relative_to(self._root)) for file in files)]
        for source in sources:
            parts = source.parts[len(_PAGES.parts) :]
            language = parts[0] if parts and parts[0] in _TRANSLATED else "en"
            if (self._root / source).is_file():
                found.setdefault(self._path_of(source), {})[language] = source
        return {path: dict(sorted(of.items())) for path, of in found.items()}

    def _path_of(self, source: PurePosixPath) -> str:
        """Return the address of a file, which is the same in each language."""
        if source == _FRONT_PAGE:
            return source.stem
        parts = source.relative_to(_PAGES).parts if source.is_relative_to(_PAGES) else ("..",)
        path = "/".join(parts[1:] if parts and parts[0] in _TRANSLATED else parts)
        return path.removesuffix(".md")

    @cached_property
    def _images(self) -> Mapping[str, Path]:
        files = (self._root / _PAGES / _IMAGES).glob("*.*")
        return {f"{_IMAGES}{file.name}": file for file in files if file.suffix in (".png", ".svg")}

    @cached_property
    def _order(self) -> Mapping[str, int]:
        """Return the place of each page on the index page."""
        if "index" not in self._paths:
            return {}
        index = self.read("index", "en")
        places = [self.follow(index, link) for link in _LINK.findall(index.markdown)]
        return {path: number for number, path in enumerate(dict.fromkeys(place.path for place in places if place))}

    @cached_property
    def _titles(self) -> Mapping[str, list[str]]:
        """Title of pages in any language, in lower case: their addresses."""
        found: dict[str, list[str]] = {}
        for path, sources in self._paths.items():
            for title in {self.read(path, language).title.lower() for language in sources}:
                found.setdefault(title, []).append(path)
        return found

    @cached_property
    def _headings(self) -> Mapping[str, Place]:
        """Heading of the runbook, below those of whole pages: its place."""
        pages = [self.read(path, "en") for path in self._paths if path.startswith(f"{Kind.RUNBOOK.value}/")]
        return {
            section.title: Place(page.path, section.anchor)
            for page in pages
            for section in page.sections
            if section.level > 1
        }


@cache
def library() -> Library:
    """Return the documentation of this version."""
    return Library(_ROOT)
