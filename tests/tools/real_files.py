"""Files of ours, read by pandas, polars, DuckDB, openpyxl and LibreOffice as the recipes say."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.tools.compare import assert_same, from_sheet
from tests.tools.environments import install_duckdb_extensions, program, run
from tests.tools.house import LISTS
from tests.tools.recipes import command, files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tools.house import House, Row

FIRST_DAY = "2000-01-01"  # from which on the recipe for Excel takes messages
# Of frames and relations: their rows, by the name of the variable.
_DUMP = """
import json as json_module

def rows(frame):
    if hasattr(frame, "to_dicts"):
        return frame.to_dicts()
    if hasattr(frame, "fetchall"):
        return [dict(zip(frame.columns, row)) for row in frame.fetchall()]
    return frame.astype(object).where(frame.notna(), None).to_dict("records")

found = {name: rows(globals()[name]) for name in %r}
with open("found.json", "w") as file:
    json_module.dump(found, file, default=str)
"""


def read(house: House, place: Path, code: str, names: list[str], environment: str = "load") -> dict[str, list[Row]]:
    """Run lines of Python; return the rows of their variables."""
    run([program(environment, "python"), "-"], place, house.environment, stdin=code + _DUMP % names)
    found: dict[str, list[Row]] = json.loads((place / "found.json").read_text())
    return found


@pytest.mark.parametrize("recipe", ["with_pandas.py", "with_polars.py"])
@pytest.mark.parametrize("name", LISTS)
def test_data_frames_have_every_value_of_each_format(house: House, tmp_path: Path, recipe: str, name: str) -> None:
    code = files("pandas")[recipe].replace("messages", name)
    found = read(house, tmp_path, code, ["parquet", "csv", "json", "excel"])
    rows = house.rows(name)
    assert_same(found["parquet"], rows)
    assert_same(found["json"], rows)
    assert_same(found["csv"], rows, text=True)
    assert_same(from_sheet(found["excel"]), rows, text=True)


def test_duckdb_reads_the_addresses_of_exports_with_a_secret(house: House, tmp_path: Path) -> None:
    install_duckdb_extensions(tmp_path)
    found = read(house, tmp_path, files("duckdb")["ask.py"], ["messages", "receipts", "replies"], "dbt")
    assert_same(found["messages"], house.rows("messages"))
    assert_same(found["receipts"], house.rows("receipts"))
    assert_same(found["replies"], house.rows("replies"), text=True)


_OPENPYXL = """
import json, sys
from openpyxl import load_workbook
path, *values = sys.argv[1:]
names, *rows = load_workbook(path, data_only=bool(values)).active.iter_rows(values_only=True)
print(json.dumps([dict(zip(names, row)) for row in rows], default=str))
"""


def take_sheet(house: House, place: Path) -> Path:
    """Get the workbook as the recipe for Excel says."""
    run(["sh", "-e", "-c", command("excel", "messages.xlsx")], place, house.environment)
    return place / "messages.xlsx"


def sheet_rows(sheet: Path, *, values: bool = False) -> list[Row]:
    """Return the rows of a workbook as openpyxl has them; `values`: of a formula, what it gave."""
    printed = run([program("load", "python"), "-c", _OPENPYXL, str(sheet), *["values"] * values], sheet.parent, {})
    return from_sheet(json.loads(printed))


def test_openpyxl_reads_every_value_of_the_workbook(house: House, tmp_path: Path) -> None:
    assert_same(sheet_rows(take_sheet(house, tmp_path)), house.rows("messages", sent_from=FIRST_DAY))


@pytest.mark.skipif(shutil.which("soffice") is None, reason="left out: LibreOffice (Debian's libreoffice-calc-nogui)")
def test_libreoffice_keeps_every_value_of_the_workbook(house: House, tmp_path: Path) -> None:
    sheet = take_sheet(house, tmp_path)
    command = ["soffice", "--headless", "--convert-to", "xlsx:Calc MS Excel 2007 XML", "--outdir", "saved", str(sheet)]
    run(command, tmp_path, {})
    saved = sheet_rows(tmp_path / "saved/messages.xlsx", values=True)  # LibreOffice writes =TRUE() for true
    assert_same(saved, house.rows("messages", sent_from=FIRST_DAY))
