#!/usr/bin/env bash
# openpyxl 3.1.5: a workbook that Excel saved as "Strict Open XML Spreadsheet (*.xlsx)", a form of ISO/IEC 29500 that
# Excel has offered beside the usual one since 2013, with the same ending.
#
# One would guess that it is read, or refused. It is opened without an error, and has no sheets: the names of its elements
# are those of the strict form (http://purl.oclc.org/ooxml/…), the library looks for those of the other, and takes out
# each sheet whose relation it does not find, with a warning that calls the sheet's specification invalid. So a program
# that goes through all sheets of a file reads nothing from it, and has no error to tell.
#
# Seen on 2026-11-29: the same cells, usual form: sheets ['Sheet1'], no warning; strict form: sheets [], one warning.
# Source: ISO/IEC 29500-1, annex A; openpyxl/reader/workbook.py, `WorkbookParser.find_sheets`
# Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check openpyxl==3.1.5
cat >"$place/try.py" <<'PYTHON'
import io
import sys
import warnings
import zipfile

import openpyxl

book = openpyxl.Workbook()
book.active.title = "Sheet1"
book.active["A1"] = "task_id"
usual, strict = io.BytesIO(), io.BytesIO()
book.save(usual)
NAMES = (
    (b"http://schemas.openxmlformats.org/spreadsheetml/2006/main", b"http://purl.oclc.org/ooxml/spreadsheetml/main"),
    (
        b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
        b"http://purl.oclc.org/ooxml/officeDocument/relationships",
    ),
)
with zipfile.ZipFile(usual) as source, zipfile.ZipFile(strict, "w") as target:
    for name in source.namelist():
        part = source.read(name)
        for transitional, strictly in NAMES:
            part = part.replace(transitional, strictly)
        if name == "xl/workbook.xml":
            part = part.replace(b"<workbook ", b'<workbook conformance="strict" ', 1)
        target.writestr(name, part)
seen = []
for form, file in (("usual", usual), ("strict", strict)):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = openpyxl.load_workbook(file)
    seen.append((found.sheetnames, len(said)))
    print(f"{form} form: sheets {found.sheetnames}, {len(said)} warnings")
sys.exit(seen != [(["Sheet1"], 0), ([], 1)])
PYTHON
"$place/venv/bin/python" "$place/try.py"
