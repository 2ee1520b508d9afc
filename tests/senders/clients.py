"""The clients: what each needs, how it is built and run."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAMS = Path(__file__).with_name("programs")
_JARS = "/usr/share/java"
_RUN_SECONDS = 150
_BUILD_SECONDS = 300
_STORE_PASSWORD = "password"
# A program, or a file (wildcards allowed), and Debian's package of it.
_JDK = (("javac", "openjdk-17-jdk-headless"), (f"{_JARS}/gson.jar", "libgoogle-gson-java"))
_PHP = (("php", "php-cli"),)
_NODE = (("node", "nodejs"), ("npm", "npm"))


@dataclass(frozen=True)
class Push:
    """One push that a client is to make. Without fields it has no body, and its data stand in the URL."""

    url: str
    fields: dict[str, str] | None
    pause_seconds: float = 0.0  # before it


@dataclass(frozen=True)
class Client:
    """One client: a program of a few lines around somebody else's library."""

    name: str
    program: str  # its file in programs/
    needs: tuple[tuple[str, str], ...] = ()
    jars: tuple[str, ...] = ()
    keeps: bool = True  # connections between pushes, where it may
    pauses: bool = True  # between two pushes on one connection

    @property
    def lacks(self) -> list[str]:
        """Debian's packages of what it needs and this machine has not."""
        return [package for needed, package in self.needs if not _is_there(needed)]

    def build(self, place: Path) -> None:
        """Make in a directory what is run: classes, a binary, or packages beside the program."""
        source = PROGRAMS / self.program
        if source.suffix == ".java":
            _call(["javac", "-d", ".", "-cp", self._class_path, str(PROGRAMS / "Pushes.java"), str(source)], place)
        elif source.suffix == ".go":
            # Nothing of it is fetched: it imports the standard library alone.
            _call(["go", "build", "-o", source.stem, str(source)], place, GOCACHE=str(place.parent / "go"), GOFLAGS="")
        elif source.suffix == ".mjs":
            for name in ("package.json", "package-lock.json", "pushes.mjs", self.program):
                shutil.copy(PROGRAMS / name, place)
            _call(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"], place)

    def run(self, place: Path, pushes: Sequence[Push], *, kept: bool, authority: Path | None = None) -> list[str]:
        """Make pushes, on one kept connection or each on a new one; give a line of each: its status and push id."""
        given = {
            "ca": str(authority or ""),
            "kept": kept,
            "pushes": [
                {"url": push.url, "fields": push.fields, "pause_seconds": push.pause_seconds} for push in pushes
            ],
        }
        run = subprocess.run(
            self._command(place, kept=kept, authority=authority),
            # Node 18 takes the first address of a name, and `localhost` may have ::1 first.
            env={**os.environ, "NODE_OPTIONS": "--dns-result-order=ipv4first", "GODEBUG": "netdns=go"},
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=_RUN_SECONDS,
            cwd=place,
        )
        assert run.returncode == 0, run.stderr + run.stdout
        return [line.strip() for line in run.stdout.splitlines()]

    @property
    def _class_path(self) -> str:
        return ":".join([".", *(f"{_JARS}/{jar}.jar" for jar in ("gson", *self.jars))])

    def _command(self, place: Path, *, kept: bool, authority: Path | None) -> list[str]:
        source = PROGRAMS / self.program
        if source.suffix == ".java":
            trust = [] if authority is None else _java_trust(authority)
            command = ["java", "-XX:TieredStopAtLevel=1", *trust, "-cp", self._class_path]
            return [*command, source.stem, "kept" if kept else "new"]
        if source.suffix == ".go":
            return [str(place / source.stem)]
        if source.suffix == ".mjs":
            trust = [] if authority is None else ["env", f"NODE_EXTRA_CA_CERTS={authority}"]
            return [*trust, "node", self.program]
        interpreter = {".php": "php", ".rb": "ruby", ".pl": "perl", ".py": sys.executable}[source.suffix]
        return [interpreter, str(source)]


def _java(name: str, program: str, *jars: tuple[str, str]) -> Client:
    """A client of the JDK's, or of Debian's Java libraries: each jar by its name, and its package."""
    needs = (*_JDK, *((f"{_JARS}/{jar}.jar", package) for jar, package in jars))
    return Client(name, program, needs, tuple(jar for jar, _ in jars))


_LOGGING = ("commons-logging", "libcommons-logging-java")
_CODEC = ("commons-codec", "libcommons-codec-java")
_SLF4J = (("slf4j-api", "libslf4j-java"), ("slf4j-nop", "libslf4j-java"))
_HTTP_CORE_5 = (("httpcore5", "libhttpcore5-java"), ("httpcore5-h2", "libhttpcore5-java"))
_JETTY = tuple((f"jetty9-{part}", "libjetty9-java") for part in ("http", "io", "util"))
_SPRING = tuple((f"spring3-{part}", f"libspring-{part}-java") for part in ("web", "core", "beans"))

CLIENTS = (
    _java("HttpURLConnection", "UrlConnection.java"),
    _java("java.net.http", "JavaNetHttp.java"),
    _java(
        "commons-httpclient 3.1",
        "CommonsHttpClient.java",
        ("commons-httpclient", "libcommons-httpclient-java"),
        _LOGGING,
        _CODEC,
    ),
    _java(
        "HttpClient 4",
        "HttpClient4.java",
        ("httpclient", "libhttpclient-java"),
        ("httpcore", "libhttpcore-java"),
        _LOGGING,
        _CODEC,
    ),
    _java("HttpClient 5", "HttpClient5.java", ("httpclient5", "libhttpclient5-java"), *_HTTP_CORE_5, *_SLF4J, _CODEC),
    _java("OkHttp", "OkHttp.java", ("okhttp", "libokhttp-java"), ("okio", "libokio-java")),
    _java("Spring RestTemplate", "SpringRestTemplate.java", *_SPRING, _LOGGING),
    _java("Jetty", "Jetty.java", ("jetty9-client", "libjetty9-extra-java"), *_JETTY),
    Client("PHP curl", "php_curl.php", (*_PHP, ("/etc/php/*/mods-available/curl.ini", "php-curl"))),
    Client("PHP streams", "php_streams.php", _PHP, keeps=False),
    Client("Go net/http", "net_http.go", (("go", "golang-go"),)),
    Client("Ruby Net::HTTP", "net_http.rb", (("ruby", "ruby"),)),
    Client(
        "Perl LWP",
        "lwp.pl",
        (
            ("/usr/share/perl5/LWP.pm", "libwww-perl"),
            ("/usr/share/perl5/LWP/Protocol/https.pm", "liblwp-protocol-https-perl"),
        ),
    ),
    Client("Python requests", "python_requests.py"),  # pinned in requirements.lock
    Client("curl", "run_curl.py", (("curl", "curl"),), pauses=False),
    Client("Node fetch", "fetch.mjs", _NODE),
    Client("undici", "undici.mjs", _NODE),
    Client("axios", "axios.mjs", _NODE),
)


def _is_there(needed: str) -> bool:
    return bool(glob.glob(needed)) if needed.startswith("/") else shutil.which(needed) is not None  # noqa: PTH207


def _java_trust(authority: Path) -> list[str]:
    """What tells Java whom to trust; the file for it is made once, beside the authority's own."""
    store = authority.with_suffix(".p12")
    if not store.exists():
        command = ["keytool", "-importcert", "-noprompt", "-alias", "test", "-file", str(authority)]
        command += ["-keystore", str(store), "-storetype", "PKCS12", "-storepass", _STORE_PASSWORD]
        _call(command, authority.parent)
    # Without its password such a store reads as an empty one.
    return [f"-Djavax.net.ssl.trustStore={store}", f"-Djavax.net.ssl.trustStorePassword={_STORE_PASSWORD}"]


def _call(command: list[str], place: Path, **environment: str) -> None:
    run = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=_BUILD_SECONDS,
        cwd=place,
    )
    assert run.returncode == 0, run.stderr + run.stdout
