"""What the lock file brings along: its licences, its bill of materials, and its known faults.

python -m tests.supply licences                  each is one of those that deploy/licences.toml allows
python -m tests.supply sbom LOCK FILE            CycloneDX 1.6, valid, of a lock and of what is kept beside our pages
python -m tests.supply faults LOCK [OPTIONS]     what pip-audit knows of, by its own options; says what it could not ask
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.lock import LOCK
from receiver import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

ROOT = Path(__file__).parent.parent
LICENCES = ROOT / "deploy" / "licences.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One thing that is brought along, as it was locked."""

    name: str
    version: str
    hashes: tuple[str, ...]  # SHA-256, of each file that it may be installed from
    licence: str  # an SPDX expression
    source: str = "pypi"


def read_parts(lock: Path, rules: dict[str, Any]) -> list[Part]:
    """What a lock names for this machine, and what is vendored. Raises ValueError for a licence that is not allowed."""
    pinned = {}
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split(" --hash=sha256:")
            wanted = Requirement(requirement)
            if wanted.marker is None or wanted.marker.evaluate():
                pinned[wanted.name] = (str(wanted.specifier).removeprefix("=="), tuple(map(str.strip, hashes)))
    licences = read_licences([*pinned], rules)
    parts = [
        Part(
            name=name,
            version=version,
            hashes=hashes,
            licence=rules["stated"].get(f"{name}:{version}") or licences[name],
        )
        for name, (version, hashes) in pinned.items()
    ]
    return [*parts, *read_vendored(rules["allowed"])]


def read_licences(names: list[str], rules: dict[str, Any]) -> dict[str, str]:
    """What pip-licenses finds for those that are not stated by hand. Raises ValueError where one is not allowed."""
    classifiers = rules["classifiers"]
    command = ["piplicenses", "--with-system", "--format", "json", "--packages", *names]
    command += ["--allow-only", ";".join([*rules["allowed"], *classifiers]), "--ignore-packages", "", *rules["stated"]]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return {
        canonicalize_name(one["Name"]): " OR ".join(
            sorted({classifiers[said] for said in one["License"].split("; ") if said in classifiers})
        )
        or one["License"]
        for one in json.loads(done.stdout)
    }


def read_vendored(allowed: Collection[str]) -> Iterator[Part]:
    """What is kept beside our pages, as its VENDORED says. Raises ValueError for a licence that is not allowed."""
    for path in sorted((ROOT / "receiver").rglob("VENDORED")):
        said = re.findall(
            r"^(\S+) (\S+), from npm, licence (\S+) .*\nIts package: sha256 (\w+)$", path.read_text(), re.MULTILINE
        )
        for name, version, licence, digest in said:
            if licence not in allowed:
                raise ValueError(f"license {licence} of {name} {version} is not allowed")
            yield Part(name=name, version=version, hashes=(digest,), licence=licence, source="npm")


def describe(parts: Iterable[Part]) -> str:
    """The bill of materials of `receiver` with these, CycloneDX 1.6 in JSON. Raises ValueError if it is not valid."""
    bom = Bom()
    licences = LicenseFactory()
    root = Component(name="receiver", version=__version__, type=ComponentType.APPLICATION, bom_ref="receiver")
    bom.metadata.component = root
    for part in parts:
        space, _, name = part.name.rpartition("/")
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
            licenses=[licences.make_from_string(part.licence)],
            external_references=[files],
        )
        bom.components.add(component)
    bom.register_dependency(root, bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"not a valid CycloneDX 1.6: {error}")
    return text


def audit(lock: Path, *arguments: str) -> tuple[list[str], list[str]]:
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
    """Do one of the three; give the exit code. Raises ValueError for a licence that is not allowed."""
    rules = tomllib.loads(LICENCES.read_text())
    match arguments:
        case ["licences"]:
            parts = read_parts(LOCK, rules)
            for part in parts:
                print(f"{part.name} {part.version}: {part.licence}")
            return 0
        case ["sbom", lock, file]:
            parts = read_parts(Path(lock), rules)
            Path(file).write_text(describe(parts))
            print(f"{file}: {len(parts)} parts")
            return 0
        case ["faults", lock, *options]:
            known, unasked = audit(Path(lock), *options)
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
