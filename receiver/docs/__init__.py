"""The documentation: pages of Markdown, in a checkout and in an installed wheel, for console and command line."""

from receiver.docs.library import ALARMS_INDEX, Library, Place, library
from receiver.docs.page import Document, Kind, Section, parse_document
from receiver.docs.search import Hit, search

__all__ = [
    "ALARMS_INDEX",
    "Document",
    "Hit",
    "Kind",
    "Library",
    "Place",
    "Section",
    "library",
    "parse_document",
    "search",
]
