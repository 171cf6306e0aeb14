"""A folder that answers without Podium: model files, card, predict.py and the modules it needs.

In: model files and a card. Out: the folder. The modules are copies of Podium's own, as they stand,
in a package of another name: what decodes and scales a picture there is what did in training.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import podium
from podium.data import decode, jpeg, preprocessing, views
from podium.engine import runner
from podium.engine.runner import CARD_FILE, CARD_FORMAT
from podium.files import write_json

PREDICT_FILE = "predict.py"
PACKAGE = "shipped"
_SOURCE = Path(podium.__file__).parent
# `from podium.data.decode import RGB` -> `from shipped.decode import RGB`
_OWN_IMPORT = re.compile(r"(?m)^( *)from podium\.(?:\w+\.)?(\w+) import ")


def write_code(folder: Path) -> None:
    """Put predict.py and the package `shipped` into `folder`."""
    modules = (_SOURCE / "errors.py", *map(_file_of, (decode, jpeg, preprocessing, views, runner)))
    package = folder / PACKAGE
    package.mkdir()
    (package / "__init__.py").write_bytes(b"")
    for source, target in [
        *((path, package / path.name) for path in modules),
        (Path(__file__).with_name("shipped_predict.py"), folder / PREDICT_FILE),
    ]:
        text = source.read_text(encoding="utf-8")
        target.write_text(
            _OWN_IMPORT.sub(rf"\1from {PACKAGE}.\2 import ", text), encoding="utf-8", newline="\n"
        )


def write_deploy_card(
    folder: Path, card: dict[str, Any], tta: str, runtime: dict[str, Any], **facts: Any
) -> None:
    """Write the card beside the model files in `folder`, with their sizes and hashes.

    Args:
        folder: holds the files of the model and no others yet.
        card: of the trained weights.
        tta: the views of each image.
        runtime: of `podium.slim.candidates.make_files`.
        facts: what else the card says.
    """
    files = {}
    for path in sorted(folder.glob("model.*"), reverse=True):  # program before weights
        content = path.read_bytes()
        files[path.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    kept = {key: value for key, value in card.items() if key not in ("format", "weights")}
    write_json(
        folder / CARD_FILE,
        {
            "format": CARD_FORMAT,
            **kept,
            "trained_weights_sha256": card["weights"]["sha256"],
            "tta": tta,
            "runtime": runtime,
            "files": files,
            **facts,
        },
    )


def _file_of(module: Any) -> Path:
    return Path(module.__file__)
