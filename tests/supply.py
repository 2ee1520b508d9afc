"""What the lock files bring along: its licences, its bill of materials, and its known faults.

python -m tests.supply licences                  each is one of those that deploy/licences.toml allows
python -m tests.supply sbom LOCK FILE            CycloneDX 1.6, valid, of a lock and of what is kept beside our pages
python -m tests.supply faults [pip-audit's own]  what pip-audit knows of; says what it could not ask about
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import ExpressionError, get_spdx_licensing
from packageurl import PackageURL
from packaging.requirements import Requirement

from receiver import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements-dev.lock"  # which has the others in it
SERVED = ROOT / "requirements-extras.lock"
LICENCES = ROOT / "deploy" / "licences.toml"
_SPDX = get_spdx_licensing()
# What a package's metadata says where it has no SPDX expression, if that can mean one licence only.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One thing that is brought along, as it was locked."""

    name: str
    version: str
    hashes: tuple[str, ...]  # SHA-256, of each file that it may be installed from
    licence: str | None = None  # an SPDX expression; None: it does not say
    source: str = "pypi"


def read_lock(path: Path) -> Iterator[Part]:
    """What a lock names for this machine."""
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pinned, *hashes = line.split(" --hash=sha256:")
        wanted = Requirement(pinned)
        if wanted.marker is None or wanted.marker.evaluate():
            version = str(wanted.specifier).removeprefix("==")
            yield Part(
                name=wanted.name,
                version=version,
                hashes=tuple(map(str.strip, hashes)),
                licence=read_licence(wanted.name),
            )


def read_licence(name: str) -> str | None:
    """The SPDX expression that an installed package states of itself. None: it is not installed, or states none."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if found["License-Expression"]:
        return str(found["License-Expression"])
    ends = {line.rpartition(" :: ")[2] for line in found.get_all("Classifier") or () if line.startswith("License ::")}
    known = {_CLASSIFIERS[end] for end in ends if end in _CLASSIFIERS}
    return " OR ".join(sorted(known)) or _as_spdx(found["License"] or "")


def read_vendored() -> Iterator[Part]:
    """What is kept beside our pages, as its VENDORED says."""
    for path in sorted((ROOT / "receiver").rglob("VENDORED")):
        said = re.findall(
            r"^(\S+) (\S+), from npm, licence (\S+) .*\nIts package: sha256 (\w+)$", path.read_text(), re.MULTILINE
        )
        for name, version, licence, digest in said:
            yield Part(name=name, version=version, hashes=(digest,), licence=licence, source="npm")


def unfit(parts: Iterable[Part], *, allowed: frozenset[str], stated: Mapping[str, str]) -> list[str]:
    """What is wrong with the licences of these, a line each. `stated`: of those whose metadata says too little."""
    wrong = []
    for part in parts:
        if part.licence is not None and part.name in stated:
            wrong.append(f"{part.name} {part.version}: says {part.licence} by itself now; take it out of `stated`")
        licence = part.licence or stated.get(part.name)
        if licence is None:
            wrong.append(f"{part.name} {part.version}: states no licence; read its file, and put it into `stated`")
        elif not _is_allowed(licence, allowed):
            wrong.append(f"{part.name} {part.version}: {licence} is not allowed")
    return wrong


def _is_allowed(licence: str, allowed: frozenset[str]) -> bool:
    try:
        wanted = _SPDX.parse(licence, validate=True, strict=True)
    except ExpressionError:
        return False
    # True where what is allowed makes it true: one side of an OR, both of an AND.
    given = {symbol: _SPDX.TRUE if str(symbol) in allowed else _SPDX.FALSE for symbol in _SPDX.license_symbols(wanted)}
    return bool(wanted.subs(given, simplify=True) == _SPDX.TRUE)


def _as_spdx(text: str) -> str | None:
    try:
        return text if _SPDX.parse(text, validate=True, strict=True) else None
    except ExpressionError:
        return None


def describe(parts: Iterable[Part], *, stated: Mapping[str, str]) -> str:
    """The bill of materials of `receiver` with these, CycloneDX 1.6 in JSON. Raises ValueError if it is not valid."""
    bom = Bom()
    licences = LicenseFactory()
    root = Component(name="receiver", version=__version__, type=ComponentType.APPLICATION, bom_ref="receiver")
    bom.metadata.component = root
    for part in parts:
        space, _, name = part.name.rpartition("/")
        licence = part.licence or stated.get(part.name)
        url = (
            f"https://pypi.org/project/{name}/"
            if part.source == "pypi"
            else f"https://www.npmjs.com/package/{part.name}"
        )
        files = ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION,
            url=XsUri(url),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in part.hashes],
        )
        component = Component(
            name=part.name,
            version=part.version,
            bom_ref=f"{part.source}:{part.name}",
            purl=PackageURL(part.source, space or None, name, part.version),
            licenses=[licences.make_from_string(licence)] if licence else [],
            external_references=[files],
        )
        bom.components.add(component)
    bom.register_dependency(root, bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"not a valid CycloneDX 1.6: {error}")
    return text


def audit(*arguments: str, lock: Path = SERVED) -> tuple[list[str], list[str]]:
    """Ask pip-audit about each part of a lock: what is known against it, and what could not be asked about, and why."""
    command = ["pip_audit", "--disable-pip", "--require-hashes", "--requirement", str(lock), "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "10", *arguments]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return [], [(done.stderr.strip() or "pip-audit said nothing").splitlines()[-1]]
    known = [
        f"{one['name']} {one['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'no version'}"
        for one in found
        for fault in one.get("vulns", ())
    ]
    return known, [one["skip_reason"] for one in found if "skip_reason" in one]


def main(arguments: list[str]) -> int:
    """Do one of the three; give the exit code."""
    rules = tomllib.loads(LICENCES.read_text())
    match arguments:
        case ["licences"]:
            parts = [*read_lock(LOCK), *read_vendored()]
            wrong = unfit(parts, allowed=frozenset(rules["allowed"]), stated=rules["stated"])
            for line in wrong:
                print(f"licence: {line}", file=sys.stderr)
            print(f"{len(parts)} licences looked at, {len(wrong)} not fit")
            return bool(wrong)
        case ["sbom", lock, file]:
            parts = [*read_lock(Path(lock)), *read_vendored()]
            Path(file).write_text(describe(parts, stated=rules["stated"]))
            print(f"{file}: {len(parts)} parts")
            return 0
        case ["faults", *options]:
            known, unasked = audit(*options)
            for line in known:
                print(f"known fault: {line}", file=sys.stderr)
            if unasked:
                # An outage of a service of others stops nobody's work; that nothing was learnt is said.
                print(f"NOT AUDITED: {len(unasked)}, the first: {unasked[0]}", file=sys.stderr)
            print(f"{len(known)} known faults, {len(unasked)} not audited")
            return bool(known)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
