#!/usr/bin/env bash
# XlsxWriter 3.3.1: `worksheet.write_string(row, column, text)` with a text that begins with "<r>" and ends with "</r>".
#
# One would guess that the cell has the text as it was given: the method is documented to write any string, up to 32,767
# characters. But the library keeps the markup that its own `write_rich_string` makes in the same form, and takes such a
# text for it: it is written into the workbook without escaping. The method returns 0 and raises nothing. With "&" or "<"
# in between, the workbook is no well-formed XML, and openpyxl cannot open it at all; else the cell is empty. So one cell
# of what others have sent costs the text, or the whole workbook.
#
# Seen on 2026-11-30, with constant_memory and without: "<r>a &amp; b</r>" and "<r>a</r>" are read as ''; "<r>a & b</r>":
# ParseError, not well-formed (invalid token). Not in the documentation of write_string, nor of constant_memory.
# Source: xlsxwriter/worksheet.py, `Worksheet._write_cell`; xlsxwriter/sharedstrings.py, `SharedStrings._write_si`
# Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check xlsxwriter==3.3.1 openpyxl==3.1.5
cat >"$place/try.py" <<'PYTHON'
import io
import sys
from xml.etree.ElementTree import ParseError

import openpyxl
import xlsxwriter


def read_back(text, options):
    """Return what a cell has after this text was written into it."""
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, options)
    assert book.add_worksheet().write_string(0, 0, text) == 0
    book.close()
    file.seek(0)
    try:
        return openpyxl.load_workbook(file).active["A1"].value
    except ParseError as error:
        return f"ParseError: {error}"


seen = []
for options in ({}, {"constant_memory": True}):
    for text in ("<s>a & b</s>", "<r>a &amp; b</r>", "<r>a</r>", "<r>a & b</r>"):
        found = read_back(text, options)
        print(f"{options}: {text!r} is read as {found!r}")
        seen.append(found.partition(":")[0])
sys.exit(seen != ["<s>a & b</s>", "", "", "ParseError"] * 2)
PYTHON
"$place/venv/bin/python" "$place/try.py"
