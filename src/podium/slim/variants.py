"""Smaller nets by their names, for the compress stage.

In: a parent and the params. Out: a `Variant`. `podium.slim.qat.teach_int8` makes it ready for int8.
"""

from __future__ import annotations

from podium.errors import PodiumError, did_you_mean
from podium.slim import pruned, student
from podium.slim.params import CompressParams
from podium.slim.parent import Parent, Variant, load_parent

__all__ = ["NAMES", "Parent", "Variant", "load_parent", "make_variant"]

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
