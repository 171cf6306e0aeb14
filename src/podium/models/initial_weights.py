"""What a trunk's weights are before training: from a package, a file of the user's, or a download.

In: `model` of params.yaml. Out: arrays under the trunk's own names, and the hash of their file. No
file is trusted: nothing that it says is run, and each array must have its place in the net.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from paddle import nn
from safetensors import SafetensorError

from podium.data.store import main_root
from podium.errors import PodiumError
from podium.files import write_text
from podium.models.catalogue import WITH_OFFLINE_WEIGHTS
from podium.models.efficientnet_lite import imagenet_weights_path
from podium.models.paddle_state import parse_paddle_state
from podium.models.torch_state import LEGACY_START, ZIP_START, parse_torch_state
from podium.models.zoo import classifier_prefixes, find_weights_source

_SHOWN = 10
_LIST = Path(".podium/weights_differences.txt")
_PICKLE_START = b"\x80"  # of protocol 2 and later; older ones Paddle never wrote

State = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """A file's arrays for one trunk.

    Attributes:
        path: of the file.
        sha256: of its content.
        state: float32, by the trunk's own names; the classifier is left out.
    """

    path: Path
    sha256: str
    state: State


def load_initial_weights(
    name: str, pretrained: bool, weights: str | None, allow_download: bool
) -> InitialWeights | None:
    """What `model` of params.yaml says that the trunk `name` begins with; None: random.

    Args:
        name, pretrained, weights, allow_download: as there.

    Raises:
        PodiumError: a file that is missing, damaged, or of no known kind; no connection.
    """
    if weights is not None:
        return read_weights(name, Path(weights))
    if not pretrained:
        return None
    if name in WITH_OFFLINE_WEIGHTS:
        return read_weights(name, imagenet_weights_path(name))
    return read_weights(name, _download(name, allow_download))


def read_weights(name: str, path: Path) -> InitialWeights:
    """The weights of the trunk `name` in a .pdparams, .safetensors or PyTorch file, which is known
    by its content.

    Raises:
        PodiumError: missing, damaged, of no known kind, or not of finite floats.
    """
    content = _read(path)
    if content.startswith((LEGACY_START, ZIP_START)):
        arrays = parse_torch_state(content, path)
    elif content.startswith(_PICKLE_START):
        arrays = parse_paddle_state(content, path)
    elif content[8:9] == b"{":
        arrays = _parse_safetensors(content, path)
    else:
        raise PodiumError(
            f"{path}: expected weights as .pdparams, .safetensors or a PyTorch state dict, got "
            f"{len(content)} bytes of neither"
        )
    state: State = {}
    for key, values in arrays.items():
        ours = _rename(name, key)
        if ours in state:
            raise PodiumError(f"{path}: expected each array once, got two for {ours}: damaged")
        if ours is not None:
            state[ours] = values
    for key, values in state.items():
        if not np.issubdtype(values.dtype, np.floating) or not np.isfinite(values).all():
            raise PodiumError(f"{path}: expected finite floats in {key}, got others: damaged")
    return InitialWeights(
        path,
        hashlib.sha256(content).hexdigest(),
        {key: values.astype(np.float32) for key, values in state.items()},
    )


def set_initial_weights(trunk: nn.Layer, name: str, weights: InitialWeights) -> None:
    """Put the weights into the trunk `name`, all of it.

    Raises:
        PodiumError: names or shapes differ, with the first ten differences and their number; where
            there are more, a file has all of them.
    """
    differences = find_differences(trunk, weights.state)
    if differences:
        said = f"{weights.path} does not fit {name}: {list_differences(differences)}"
        if len(differences) > _SHOWN:
            # Not in the folder that a queued run works in: that one goes away.
            listed = main_root() / _LIST
            write_text(listed, "".join(f"{line}\n" for line in differences))
            said += f"; {listed} has them all"
        raise PodiumError(said)
    trunk.set_state_dict(weights.state)


def find_differences(layer: nn.Layer, state: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """What keeps a state from being the layer's, a line each: missing, unexpected, other shapes."""
    own = layer.state_dict()
    return [
        *(f"missing {name}" for name in sorted(own.keys() - state.keys())),
        *(f"unexpected {name}" for name in sorted(state.keys() - own.keys())),
        *(
            f"{name}: expected shape {tuple(own[name].shape)}, got {values.shape}"
            for name, values in sorted(state.items())
            if name in own and tuple(own[name].shape) != values.shape
        ),
    ]


def list_differences(differences: list[str]) -> str:
    """The first ten in one line, and how many there are."""
    more = len(differences) - _SHOWN
    shown = "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return f"{len(differences)} differences: {shown}" if len(differences) > 1 else shown


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise PodiumError(f"{path} is a folder: model.weights takes one file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: model.weights takes a file that exists") from None
    if not content:
        raise PodiumError(f"{path} is empty: fetch it again")
    return content


def _parse_safetensors(content: bytes, path: Path) -> State:
    try:
        return safetensors.numpy.load(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise PodiumError(
            f"{path}: expected a .safetensors file of plain floats: {error}"
        ) from error


def _rename(name: str, key: str) -> str | None:
    """A file's name of an array as the trunk's; None: the trunk has no use for it.

    Known: the names that Podium writes (`trunk.` and `head.`), paddle.vision's, PyTorch's of the
    Lite nets, and torchvision's where they differ by the batch norm's statistics only.
    """
    if key.startswith("head.") or key.endswith("num_batches_tracked"):
        return None
    parts = key.removeprefix("trunk.").split(".")
    parts[-1] = {"running_mean": "_mean", "running_var": "_variance"}.get(parts[-1], parts[-1])
    if name in WITH_OFFLINE_WEIGHTS:
        parts[:-1] = [part.removeprefix("_") for part in parts[:-1]]
        return None if parts[0] == "fc" else ".".join(parts)
    ours = ".".join(parts)
    if key.startswith("trunk."):
        return ours
    return None if ours.startswith(classifier_prefixes(name)) else f"model.{ours}"


def _download(name: str, allow_download: bool) -> Path:
    """Paddle's file of a zoo net's ImageNet weights, in Paddle's own cache; checked by its MD5."""
    source = find_weights_source(name)
    if not allow_download or source is None:
        raise PodiumError(f"no weights of {name} without model.allow_download: true")
    # Only here: whoever does not allow it shall not even load what could do it.
    from paddle.utils.download import get_weights_path_from_url

    try:
        return Path(get_weights_path_from_url(*source))
    except (RuntimeError, OSError) as error:
        raise PodiumError(
            f"the weights of {name} could not be fetched from {source[0]} ({error}): mend the "
            "connection, or set model.pretrained: false, or model.weights to a file of yours"
        ) from error
