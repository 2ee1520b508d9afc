"""The wheel as it is handed on: all of it is inside, and alone in an empty folder it does what its page says."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from deploy.lock import read_part
from receiver import __version__
from receiver.db import version as schema
from tests.harness.ports import free_port
from tests.harness.waiting import await_true

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy/PACKAGE.md"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*command: object, **options: object) -> str:
    """Run a command that must go well, and return what it printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8", check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    printed: str = done.stdout
    return printed


def build_wheel(source: Path, into: Path) -> Path:
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", into, source)
    (made,) = into.glob("receiver-*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_carries_what_pages_are_made_of(wheel: Path) -> None:
    """Templates, scripts, styles, the compiled catalogue, migrations, documentation: there is no build step."""
    inside = names_in(wheel)
    folders = [ROOT / "receiver/web" / name for name in ("static", "console/static", "console/templates")]
    folders.append(ROOT / "receiver/translations")
    for folder in folders:
        files = {
            path.relative_to(ROOT).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"
        }
        assert files, folder
        assert files - inside == set()
    assert "receiver/translations/zh_Hans_CN/LC_MESSAGES/messages.mo" in inside
    assert {f"receiver/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "migrations").rglob("*.py")} <= inside
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "deploy/docs").rglob("*.*")} | {"README.md"}
    assert {f"receiver/docs/files/{path}" for path in pages} <= inside
    assert any(path.endswith(".png") for path in pages)


def test_wheel_has_nothing_else(wheel: Path) -> None:
    assert {name.split("/")[0] for name in names_in(wheel)} == {"receiver", f"receiver-{__version__}.dist-info"}
    assert [name for name in names_in(wheel) if re.search(r"__pycache__|\.pyc$|/tests?/", name)] == []


def test_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"receiver-{__version__}.dist-info/METADATA").decode()
    told = email.message_from_string(text)
    assert (told["Version"], told["Requires-Python"]) == (__version__, ">=3.11")
    assert set(told.get_all("Provides-Extra", [])) == {"postgres", "parquet", "numbers", "oidc", "otel"}
    # Until its owner has chosen a licence and a name of its own, no index takes it.
    assert "Private :: Do Not Upload" in told.get_all("Classifier", [])
    assert told["License"] is told["License-Expression"] is None
    # An index shows the page by itself: a link into this repository would lead nowhere.
    page = told.get_payload()
    assert isinstance(page, str)
    assert re.findall(r"\]\((?!https?://)[^)]*\)", page) == []
    assert f"receiver-{__version__}-py3-none-any.whl" in page


@pytest.mark.thorough
def test_source_package_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path, cwd=ROOT)
    (made,) = tmp_path.glob("receiver-*.tar.gz")
    with tarfile.open(made) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert names_in(build_wheel(source, tmp_path / "wheel")) == names_in(wheel)


def install_beside_tests(place: Path, wheel: Path) -> None:
    """Install the wheel alone; its dependencies are those of the tests, and this checkout is not among them."""
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin/python"
    run(*PIP, "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    shared = next(path for path in sys.path if path.endswith("site-packages"))
    Path(purelib, "shared.pth").write_text(f"{shared}\n")


def install_from_index(place: Path, wheel: Path) -> None:
    """Install the wheel with what it asks for, in the versions that are locked."""
    venv.create(place, with_pip=False, symlinks=True)
    pins = place / "pins.txt"
    pins.write_text("\n".join(re.findall(r"^[\w.-]+==[^\\\n]*", read_part("postgres"), re.MULTILINE)))
    run(*PIP, "--python", place / "bin/python", "install", "--quiet", "--constraint", pins, wheel)


@contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Have `receiver serve` run in a folder."""
    address = f"http://{environment['RECEIVER_BIND']}/healthz"

    def answers() -> bool:
        assert server.poll() is None, (folder / "serve.log").read_text()
        try:
            with urlopen(address) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False

    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(["receiver", "serve"], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        await_true(answers)
        yield
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.parametrize(
    "install",
    [install_beside_tests, pytest.param(install_from_index, marks=[pytest.mark.thorough, pytest.mark.timeout(600)])],
)
def test_wheel_alone_does_what_its_page_says(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, install: object
) -> None:
    assert callable(install)
    install(tmp_path / "venv", wheel)
    (folder := tmp_path / "empty").mkdir()
    address = f"127.0.0.1:{free_port()}"
    environment = {
        "PATH": f"{tmp_path / 'venv/bin'}:{os.defpath}",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
        "RECEIVER_BIND": address,
    }
    monkeypatch.setenv("PATH", environment["PATH"])  # by which Popen finds `receiver`

    def sh(command: str) -> str:
        return run("bash", "-euc", command, cwd=folder, env=environment)

    ours = sh("python -c 'import receiver; print(receiver.__file__)'")
    assert Path(ours).is_relative_to(tmp_path / "venv")
    assert sh("receiver --version").strip().endswith(__version__)
    assert sh("receiver db upgrade").splitlines()[0] == f"schema {schema.VERSION}"
    push, record = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    with serving(folder, environment):
        assert sh(push).strip() == "ok"
        asked = sh(record.replace("127.0.0.1:8000", address))
        (found,) = json.loads(asked[asked.index('{"items"') :])["items"]
        assert (found["status"], found["matched"]) == ("delivered", True)
        assert sh("receiver users create me --role admin <<<'a long enough password'")
        for language, words in (("en", "Log in"), ("zh-CN", "登录")):
            with urlopen(Request(f"http://{address}/console/login", headers={"Accept-Language": language})) as answer:
                page = answer.read().decode()
            assert words in page
            styles = re.findall(r'href="([^"]+\.css[^"]*)"', page)
            for style in styles:
                with urlopen(f"http://{address}{style}") as answer:
                    assert answer.status == 200
            assert styles
    assert sh("receiver docs first-push").startswith("# Your first push")
    assert sh("receiver docs scopes --language zh-CN").startswith("# API 密钥的权限范围")
