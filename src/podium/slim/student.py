"""The student: the trained net cut short, with a head of its own, taught by the whole one.

In: a parent. Out: its first layers, one more convolution, a pooling and a linear layer. What is cut
off is what weighs most, and knows most of ImageNet's classes; what stays keeps its trained
features. docs/compression_nets.md has the students that were tried beside it.
"""

from __future__ import annotations

from functools import partial

import paddle
from paddle import nn

from podium.engine.weights import State, build_from_card, load_state, read_state
from podium.errors import PodiumError
from podium.models.networks import LowerTrunk, Network, UpperNetwork
from podium.slim.arithmetic import count_macs, count_parameters
from podium.slim.distillation import Schooling, count_epochs, load_lesson, teach
from podium.slim.params import StudentParams
from podium.slim.parent import Parent, Variant

NAME = "student"
# Of what is kept, so much stays as it is and runs only once per view: early layers are the same
# for all images, and learning them costs most.
_FIXED_SHARE = 1 / 3
_HEAD_CHANNELS = 256
_LR = 2e-3


class CutTrunk(nn.Layer):  # type: ignore[misc]  # Paddle has no types
    """A trunk's first layers: float32 (N, 3, H, W) -> the map (N, C, h, w) that they give.

    Args:
        trunk: its layers from `layers` on are dropped.
        layers: how many are kept, fewer than all.
    """

    def __init__(self, trunk: nn.Layer, layers: int) -> None:
        super().__init__()
        _drop_layers(trunk, layers)
        self.whole, self.depth = trunk, layers

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.run(x, 0, self.depth)

    def run(self, x: paddle.Tensor, first: int, last: int) -> paddle.Tensor:
        """Layers `first` to `last` - 1 on what layer `first` - 1 gave."""
        return self.whole.run(x, first, last)

    def layer_of(self, parameter: str) -> int:
        """The layer that a parameter of this trunk belongs to, by its name."""
        return int(self.whole.layer_of(parameter.removeprefix("whole.")))


def make_student(parent: Parent, params: StudentParams) -> Variant:
    """Teach the parent's first layers what the parent says.

    Raises:
        PodiumError: the trunk has no layer to cut.
    """
    if parent.network.trunk.depth == 1:
        name = parent.card["architecture"]["name"]
        raise PodiumError(
            f"compress.student: {name} is one layer, which cannot be cut: leave `student` out of "
            "the candidates"
        )
    depth, layers = parent.network.trunk.depth, _count_layers(parent, params)
    build = partial(_build, parent, read_state(parent.network), layers)
    begin = round(layers * _FIXED_SHARE)
    schooling = Schooling(params.passes, _LR, params.temperature, params.alpha)
    lower = LowerTrunk(parent.network.trunk, depth - begin) if begin else None
    lesson = load_lesson(parent)
    trained = teach(lesson, build, schooling, lower, lambda net: UpperNetwork(net, layers - begin))
    student = build()
    load_state(student, {**read_state(student), **trained.state})
    student.eval()
    size = parent.preprocessing.image_size_px
    made_by = {
        "method": f"the first {layers} of {depth} layers, a 1 x 1 convolution to "
        f"{_HEAD_CHANNELS} channels and a linear layer, taught by the whole net",
        "layers": layers,
        "layers_that_learned": layers - begin,
        "passes": params.passes,
        "epochs": count_epochs(params.passes, lesson.views),
        "temperature": params.temperature,
        "alpha": params.alpha,
        "best_epoch": trained.epoch,
        "distance_from_parent": round(trained.score, 6),
        "parameters_before": count_parameters(parent.network),
        "parameters": count_parameters(student),
        "macs_before": count_macs(parent.network, size),
        "macs": count_macs(student, size),
    }
    return Variant(NAME, student, made_by)


def restore_student(parent: Parent, params: StudentParams, state: State) -> Network:
    """The student of that parent and these params with its weights, in evaluation mode.

    Raises:
        PodiumError: the weights are of another net.
    """
    student = _build(parent, read_state(parent.network), _count_layers(parent, params))
    load_state(student, state)
    student.eval()
    return student


def _count_layers(parent: Parent, params: StudentParams) -> int:
    """How many of the trunk's are kept: some, and not all."""
    depth: int = parent.network.trunk.depth
    return min(depth - 1, max(1, round(params.depth * depth)))


def _build(parent: Parent, state: State, layers: int) -> Network:
    """A student as it is before it is taught; new layers are drawn from the parent's seed."""
    network, _ = build_from_card(parent.card, state)
    trunk = CutTrunk(network.trunk, layers)
    trunk.eval()
    size = parent.preprocessing.image_size_px
    with paddle.no_grad():
        channels = int(trunk(paddle.zeros([1, 3, size, size])).shape[1])
    paddle.seed(parent.seed)
    head = nn.Sequential(
        nn.Conv2D(channels, _HEAD_CHANNELS, 1, bias_attr=False),
        nn.BatchNorm2D(_HEAD_CHANNELS),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2D(1),
        nn.Flatten(),
        nn.Linear(_HEAD_CHANNELS, parent.net_task.outputs),
    )
    return Network(trunk, head)


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
