"""The student: the trained net cut short, with a head of its own, taught by the whole one.

In: a parent. Out: its first layers, one more convolution, a pooling and a linear layer. What is cut
off is what weighs most, and knows most of ImageNet's classes; what stays keeps its trained
features. docs/compression_nets.md has the students that were tried beside it.
"""

from __future__ import annotations

from functools import partial

import paddle
from paddle import nn
from paddle.nn import functional

from podium.engine.weights import State, build_from_card, load_state, read_state
from podium.errors import PodiumError
from podium.models.networks import LowerTrunk
from podium.slim.arithmetic import count_macs, count_parameters
from podium.slim.distillation import Schooling, load_lesson, teach
from podium.slim.params import StudentParams
from podium.slim.parent import Parent, Variant

NAME = "student"
# Of what is kept, so much stays as it is and runs only once per view: early layers are the same
# for all images, and learning them costs most.
_FIXED_SHARE = 1 / 3
_HEAD_CHANNELS = 256
_LR = 2e-3


class Student(nn.Layer):  # type: ignore[misc]  # Paddle has no types
    """float32 (N, 3, H, W) -> outputs (N, k).

    Args:
        trunk: a trained trunk; its layers from `layers` on are dropped.
        layers: how many are kept.
        channels: of the map that they give.
        outputs: k.
    """

    def __init__(self, trunk: nn.Layer, layers: int, channels: int, outputs: int) -> None:
        super().__init__()
        _drop_layers(trunk, layers)
        self.trunk, self.layers = trunk, layers
        self.conv = nn.Conv2D(channels, _HEAD_CHANNELS, 1, bias_attr=False)
        self.bn = nn.BatchNorm2D(_HEAD_CHANNELS)
        self.head = nn.Linear(_HEAD_CHANNELS, outputs)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.run(x, 0)

    def run(self, x: paddle.Tensor, first: int) -> paddle.Tensor:
        """From layer `first` on, on what the layer before it gave."""
        x = self.trunk.run(x, first, self.layers)
        x = functional.relu6(self.bn(self.conv(x)))
        return self.head(paddle.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class _UpperStudent(nn.Layer):  # type: ignore[misc]
    """A student's layers from `begin` on; those below neither run nor learn."""

    def __init__(self, student: Student, begin: int) -> None:
        super().__init__()
        self.student, self.begin = student, begin
        for name, parameter in student.trunk.named_parameters():
            if student.trunk.layer_of(name) < begin:
                parameter.stop_gradient = True

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.student.run(x, self.begin)


def make_student(parent: Parent, params: StudentParams) -> Variant:
    """Teach the parent's first layers what the parent says.

    Raises:
        PodiumError: the trunk has no layer to cut.
    """
    depth = parent.network.trunk.depth
    if depth == 1:
        name = parent.card["architecture"]["name"]
        raise PodiumError(
            f"compress.student: {name} is one layer, which cannot be cut: leave `student` out of "
            "the candidates"
        )
    layers = min(depth - 1, max(1, round(params.depth * depth)))
    build = partial(_build, parent, read_state(parent.network), layers)
    begin = round(layers * _FIXED_SHARE)
    schooling = Schooling(params.passes, _LR, params.temperature, params.alpha)
    lower = LowerTrunk(parent.network.trunk, depth - begin) if begin else None
    trained = teach(
        load_lesson(parent), build, schooling, lower, lambda net: _UpperStudent(net, begin)
    )
    student = build()
    load_state(student, {**read_state(student), **trained.best_state})
    student.eval()
    size = parent.preprocessing.image_size_px
    made_by = {
        "method": f"the first {layers} of {depth} layers, a 1 x 1 convolution to "
        f"{_HEAD_CHANNELS} channels and a linear layer, taught by the whole net",
        "layers": layers,
        "layers_that_learned": layers - begin,
        "passes": params.passes,
        "temperature": params.temperature,
        "alpha": params.alpha,
        "best_epoch": trained.best_epoch,
        "distance_from_parent": round(trained.best_score, 6),
        "parameters_before": count_parameters(parent.network),
        "parameters": count_parameters(student),
        "macs_before": count_macs(parent.network, size),
        "macs": count_macs(student, size),
    }
    return Variant(NAME, student, made_by)


def _build(parent: Parent, state: State, layers: int) -> Student:
    """A student as it is before it is taught; new layers are drawn from the parent's seed."""
    network, _ = build_from_card(parent.card, state)
    network.eval()
    size = parent.preprocessing.image_size_px
    with paddle.no_grad():
        shape = network.trunk.run(paddle.zeros([1, 3, size, size]), 0, layers).shape
    paddle.seed(parent.seed)
    return Student(network.trunk, layers, int(shape[1]), parent.net_task.outputs)


def _drop_layers(trunk: nn.Layer, layers: int) -> None:
    """Take all layers from number `layers` on out of a trunk, which must not run them any more."""

    def drop(owner: nn.Layer, path: str) -> None:
        for name, child in list(owner.named_children()):
            numbers = [trunk.layer_of(f"{path}{name}.{own}") for own in child.state_dict()]
            if numbers and min(numbers) >= layers:
                del owner._sub_layers[name]
            elif numbers and max(numbers) >= layers:
                drop(child, f"{path}{name}.")

    drop(trunk, "")
