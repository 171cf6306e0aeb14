"""The gate that a float candidate must pass: the shipped files answer as the eager net does.

In: fixed pixels, the net in memory, what the files answered in their own process. Out: a refusal,
where they differ by more than rounding: another mean, another order of channels, another picture.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

from podium.data.decode import RGB
from podium.data.preprocessing import Preprocessing
from podium.engine.runner import Outputs
from podium.errors import PodiumError

COUNT = 8
# Of the largest output. Kernels add up in other orders: differences of 1e-5 are usual, a wrong mean
# or swapped channels make 1e-1.
ROUNDING = 1e-3
# Its 8 bits make 2e-2 (BGR 3e-1, ImageNet's mean and deviation 6e-1; a mean that is 3 levels off, 6e-2,
# is left to the float32 candidate of the same net and format).
BF16_ROUNDING = 1e-1


def make_parity_images(size_px: int) -> RGB:
    """The same pixels on every machine: uint8 (COUNT, size, size, 3), soft colours and noise, each
    channel another pattern, the ends of the range among them."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (COUNT, 5, 5, 3))
    index = np.arange(size_px) * 5 // size_px
    images = coarse[:, index][:, :, index] + draw.integers(-24, 25, (COUNT, size_px, size_px, 3))
    return np.asarray(np.clip(images, 0, 255), np.uint8)


def run_eagerly(network: nn.Layer, images: RGB, preprocessing: Preprocessing) -> Outputs:
    """What the network in memory answers, layer by layer, in evaluation mode."""
    network.eval()
    with paddle.no_grad():
        outputs: npt.NDArray[np.float32] = network(
            paddle.to_tensor(preprocessing.apply(images))
        ).numpy()
    return outputs


def check_finite(outputs: Outputs, what: str) -> None:
    """Refuse outputs that no score can be taken of.

    Raises:
        PodiumError: NaN or infinite for some of `what`.
    """
    bad = int((~np.isfinite(outputs)).any(axis=1).sum())
    if bad:
        raise PodiumError(f"its outputs are not finite, for {bad} of {len(outputs)} {what}")


def check_parity(shipped: Outputs, eager: Outputs, tolerance: float = ROUNDING) -> float:
    """The largest difference, of the largest output.

    Raises:
        PodiumError: it is above `tolerance`.
    """
    if shipped.shape != eager.shape:
        raise PodiumError(f"parity: expected outputs {eager.shape}, the files give {shipped.shape}")
    difference = float(np.abs(shipped - eager).max()) / max(float(np.abs(eager).max()), 1e-6)
    if not difference <= tolerance:  # also where it is NaN
        raise PodiumError(
            f"parity: on {COUNT} fixed images the files differ from the net in memory by "
            f"{difference:.1e} of the largest output, at most {tolerance:g} is rounding: "
            "other preprocessing or another net"
        )
    return difference
