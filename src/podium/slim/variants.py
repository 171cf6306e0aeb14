"""Smaller nets by their names, for the compress stage.

In: a parent and the params. Out: a `Variant`, or an int8 model that was trained for it.
"""

from __future__ import annotations

from pathlib import Path

from podium.engine.inference import ExportedModel
from podium.errors import PodiumError, did_you_mean
from podium.models.networks import Network
from podium.slim import pruned, student
from podium.slim.params import CompressParams
from podium.slim.parent import Parent, Variant, load_parent
from podium.slim.qat import quantize_aware

__all__ = ["NAMES", "Parent", "Variant", "load_parent", "make_qat_int8", "make_variant"]

NAMES = (pruned.NAME, student.NAME)


def make_variant(name: str, parent: Parent, params: CompressParams) -> Variant:
    """The smaller net of that name: pruned | student.

    Raises:
        PodiumError: there is no such net, or it cannot be made of this parent; one line that says
            why.
    """
    if name == pruned.NAME:
        return pruned.make_pruned(parent, params.prune)
    if name == student.NAME:
        return student.make_student(parent, params.student)
    raise PodiumError(
        f"expected one of {', '.join(NAMES)}, got {name!r}{did_you_mean(name, NAMES)}"
    )


def make_qat_int8(
    parent: Parent, network: Network, params: CompressParams, folder: Path
) -> ExportedModel:
    """An int8 model of `network`, which has learned to live with it; see podium.slim.qat.

    Args:
        parent: gives images and answers.
        network: the parent's own net or a variant's; stays as it is.
        params: `compress`.
        folder: where the files go; is made when missing.
    """
    return quantize_aware(parent, network, params.qat, params.calibration_images, folder)
