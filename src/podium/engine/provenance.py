"""What a model card says of where the model comes from: hashes of params, data and lock.

Only what the stage declares in dvc.yaml goes in, so that equal dependencies give equal cards:
the revision, the machine and the clock are in metrics/measured/.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from podium.dag import declared_params
from podium.errors import PodiumError

LOCK_FILE = Path("requirements.lock")
MANIFEST = Path("data/manifest.csv")


def make_card_hashes(stage: str, root: Path = Path()) -> dict[str, str]:
    """SHA-256 of what `stage` was given.

    Args:
        stage: its name in dvc.yaml; it must depend on the manifest and the lock.
        root: of the tree.

    Returns:
        params_sha256: of the params that the stage declares, see `hash_json`;
        manifest_sha256: of data/manifest.csv, which has the hash of every image;
        lock_sha256: of requirements.lock.

    Raises:
        PodiumError: a file is missing.
    """
    return {
        "params_sha256": hash_json(declared_params(root, stage)),
        "manifest_sha256": _hash_file(root / MANIFEST),
        "lock_sha256": _hash_file(root / LOCK_FILE),
    }


def hash_json(content: dict[str, Any]) -> str:
    """SHA-256 of content as JSON with sorted keys: the order in params.yaml and its comments do not
    count."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _hash_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: `git checkout` or `dvc repro` brings it") from None
