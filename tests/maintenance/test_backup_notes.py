"""Whether backups are made, and whether somebody looks for what is wrong, is noted on the node and told by doctor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from receiver.maintenance.backup_notes import COMMAND, find_backups
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path


def checks(process: ServeProcess) -> dict[str, tuple[bool | None, str]]:
    """What doctor finds, by check; None: a note."""
    rows = json.loads(process.run("doctor", "--json").stdout)
    return {row["check"]: (None if row["note"] else row["ok"], row["text"]) for row in rows}


def test_backup_notes_whether_it_went_well(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path / "var")
    process.data_dir.mkdir(mode=0o700)
    process.upgrade()
    ok, said = checks(process)["backup"]
    assert (ok, "none made here yet" in said) == (None, True)
    assert "backup" not in json.loads(process.run("status", "--json").stdout)

    (tmp_path / "file").write_text("")
    assert process.run("backup", str(tmp_path / "file" / "backups")).returncode == 1
    noted = find_backups(process.data_dir)[COMMAND]
    assert (noted.made_at, noted.failing) == (None, True)
    ok, said = checks(process)["backup"]
    assert (ok, said.startswith("none by `receiver backup`, failed 20")) == (None, True)

    assert process.run("backup", str(tmp_path / "backups")).returncode == 0
    assert not find_backups(process.data_dir)[COMMAND].failing
    ok, said = checks(process)["backup"]
    assert (ok, said.startswith("last by `receiver backup`: 20")) == (True, True)
    assert json.loads(process.run("status", "--json").stdout)["backup"] == said


def test_doctor_notes_that_nobody_looks_and_that_nobody_is_told(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path)
    ok, said = checks(process)["alarms"]
    assert ok is None
    assert said == (
        "no notifications: set RECEIVER_ALARM_URLS; "
        "`receiver run alarms` has not run here yet; enable receiver-alarms.timer"
    )
    told = ServeProcess(tmp_path, environment={"RECEIVER_ALARM_URLS": "url:http://127.0.0.1:9/"})
    told.run("run", "alarms")
    assert checks(told)["alarms"] == (True, "1 alarm URL(s)")

    kept = tmp_path / "alarms.json"
    saved = json.loads(kept.read_text())
    kept.write_text(json.dumps(saved | {"looked_at": "2026-11-23T04:00:00+00:00"}))
    ok, said = checks(told)["alarms"]
    assert (ok, "has not run here since 2026-11-23T04:00:00Z" in said) == (None, True)
    del saved["looked_at"]  # as an older version has left it
    kept.write_text(json.dumps(saved))
    assert "has not run here yet" in checks(told)["alarms"][1]
