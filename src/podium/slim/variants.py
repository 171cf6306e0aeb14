"""Smaller nets by their names, for the compress stage.

In: a parent and the params. Out: a `Variant`, or one's network again from its weights.
`podium.slim.qat.teach_int8` makes it ready for int8.
"""

from __future__ import annotations

from podium.engine.weights import State
from podium.errors import PodiumError, did_you_mean
from podium.models.networks import Network
from podium.slim import pruned, student
from podium.slim.params import CompressParams
from podium.slim.parent import Parent, Variant, load_parent

__all__ = ["NAMES", "Parent", "Variant", "load_parent", "make_variant", "restore_variant"]

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


def restore_variant(name: str, parent: Parent, params: CompressParams, state: State) -> Network:
    """The network of a variant that was made with these params, from its weights.

    Raises:
        PodiumError: the weights are of another net.
    """
    restore = {
        pruned.NAME: lambda: pruned.restore_pruned(parent, state),
        student.NAME: lambda: student.restore_student(parent, params.student, state),
    }
    return restore[name]()
