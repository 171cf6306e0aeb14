"""What is installed beside what requirements.lock asks for.

In: requirements.lock, the environment of this interpreter. Out: packages that are missing or of
another version, and a hash of all of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from podium.engine.provenance import LOCK_FILE
from podium.errors import PodiumError


@dataclass(frozen=True)
class Mismatch:
    """A package of the lock that is installed in another version; None: not at all."""

    name: str
    locked: str
    installed: str | None


def installed_packages() -> dict[str, str]:
    """Name, as package indexes spell it, -> version of everything installed here; sorted."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(_normalise(name), distribution.version)
    return dict(sorted(found.items()))


def locked_packages(root: Path) -> dict[str, str]:
    """Name -> version of what the lock asks for on this machine and Python.

    Raises:
        PodiumError: there is no lock, or a line of it is not `name==version`.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        text = (root / LOCK_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PodiumError(f"{LOCK_FILE} is missing: `git checkout {LOCK_FILE}`") from None
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not re.match(r"[A-Za-z0-9]", line):
            continue  # hashes and comments
        try:
            requirement = Requirement(line.rstrip(" \\"))
            (version,) = [s.version for s in requirement.specifier if s.operator == "=="]
        except (InvalidRequirement, ValueError):
            raise PodiumError(
                f"{LOCK_FILE}, line {number}: expected `name==version`, got {line!r}: "
                f"`git checkout {LOCK_FILE}`"
            ) from None
        if requirement.marker is None or requirement.marker.evaluate():
            found[_normalise(requirement.name)] = version
    return found


def find_mismatches(locked: Mapping[str, str], installed: Mapping[str, str]) -> list[Mismatch]:
    """The locked packages that are not as locked, sorted."""
    return [
        Mismatch(name, version, installed.get(name))
        for name, version in sorted(locked.items())
        if installed.get(name) != version
    ]


def hash_packages(packages: Mapping[str, str]) -> str:
    """SHA-256 of names and versions."""
    lines = "\n".join(f"{name}=={version}" for name, version in sorted(packages.items()))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
