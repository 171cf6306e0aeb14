"""Filter pruning: what goes, what stays, and what PaddleSlim needs to say so."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from pydantic import ValidationError

from podium.engine.inference import Predictor, export
from podium.engine.weights import build_from_card
from podium.errors import PodiumError
from podium.slim import paddleslim_compat
from podium.slim.arithmetic import count_macs, count_parameters
from podium.slim.params import PruneParams
from podium.slim.parent import Parent
from podium.slim.pruning import FilterCutter, _zero_out
from podium.slim.refit import input_axis, measure_products, refit
from podium.slim.shrinking import build_shrunk
from tests.small_parents import SIZE, make_parent

EXPAND, PROJECT = "trunk.blocks.6.expand_conv", "trunk.blocks.5.project_conv"


@pytest.fixture(scope="module")
def parent() -> Parent:
    return make_parent()


@pytest.fixture(scope="module")
def cutter(parent: Parent) -> FilterCutter:
    return FilterCutter(parent.network, "l1", SIZE)


def outputs_of(network: paddle.nn.Layer, inputs: np.ndarray) -> np.ndarray:
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(inputs)).numpy()


# --- the compat module


def test_nothing_is_lent_outside_the_block(cutter: FilterCutter) -> None:
    for owner, name, _ in paddleslim_compat.ATTRIBUTES:
        assert name not in vars(owner), f"{name} is there without us: drop it from ATTRIBUTES"
    with paddleslim_compat.paddleslim_works():
        assert all(name in vars(owner) for owner, name, _ in paddleslim_compat.ATTRIBUTES)
    assert all(name not in vars(owner) for owner, name, _ in paddleslim_compat.ATTRIBUTES)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("analysis/latency_predictor.py", "import pip"),
        ("common/load_model.py", "import pkg_resources"),
        ("dygraph/prune/fpgm_pruner.py", "np.product"),
        ("common/rl_controller/lstm/lstm_controller.py", "np.float)"),
        ("core/dygraph.py", "base._to_static_mode_guard_("),
    ],
)
def test_paddleslim_still_needs_it(file: str, text: str) -> None:
    """When one fails, PaddleSlim has mended it: take it out of the compat module."""
    spec = importlib.util.find_spec("paddleslim")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / file
    assert path.exists(), f"{path} is gone"
    assert text in path.read_text(encoding="utf-8")


def test_only_pruning_pays_for_the_import() -> None:
    code = "import sys, podium.slim.variants; sys.exit('paddleslim' in sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


# --- the cut


def test_a_cut_net_answers_as_one_whose_channels_are_zero(
    parent: Parent, cutter: FilterCutter
) -> None:
    """A block's inner channels with their depthwise kernels, and a stage's, which blocks share."""
    ratios = {EXPAND: 0.5, PROJECT: 0.3}
    cut = cutter.cut(ratios)
    shrunk = build_shrunk(parent.card, cut.state)
    zeroed, _ = build_from_card(parent.card, cutter._state)
    own = zeroed.state_dict()
    for name, axis, mask in cutter._find_masks(cut.ratios):
        own[name].set_value(_zero_out(own[name].numpy(), axis, mask))
    inputs = parent.preprocessing.apply(parent.images[:4])
    expected = outputs_of(zeroed, inputs)
    assert np.abs(expected - outputs_of(parent.network, inputs)).max() > 0.01
    assert outputs_of(shrunk, inputs) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    block = shrunk.trunk.blocks[6]
    assert block.expand_conv.weight.shape == [240, 56, 1, 1]
    assert block.depthwise_conv.weight.shape[:2] == [240, 1]
    assert block.depthwise_conv._groups == 240
    assert block.project_conv.weight.shape[:2] == [56, 240]
    assert shrunk.trunk.blocks[7].project_conv.weight.shape[0] == 56  # it is added to the former


def test_the_work_that_was_asked_for_goes_and_the_file_shrinks(
    parent: Parent, cutter: FilterCutter, tmp_path: Path
) -> None:
    cut = cutter.cut_to(0.5, cutter.uniform)
    assert 1 - cut.macs / cutter.macs == pytest.approx(0.5, abs=0.03)
    assert cutter._foresee(cut.ratios) == cut.macs
    shrunk = build_shrunk(parent.card, cut.state)
    shrunk.eval()
    assert count_macs(shrunk, SIZE) == cut.macs
    assert cutter.macs == count_macs(parent.network, SIZE)
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = export(parent.network, SIZE, tmp_path / "whole")
    model = export(shrunk, SIZE, tmp_path / "cut")
    lost = 4 * (count_parameters(parent.network) - count_parameters(shrunk))
    assert lost > 4e6
    assert whole.size_bytes() - model.size_bytes() == pytest.approx(lost, rel=0.01)
    inputs = parent.preprocessing.apply(parent.images[:4])
    assert Predictor(model).run(inputs) == pytest.approx(
        outputs_of(shrunk, inputs), rel=1e-3, abs=1e-3
    )


def test_a_layer_makes_up_for_an_input_that_others_repeat() -> None:
    """The last input is the sum of the first two: without it the same can be said."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(1, 1, (200, 4)).astype(np.float32)
    inputs[:, 3] = inputs[:, 0] + inputs[:, 1]
    weight = draw.normal(size=(4, 2)).astype(np.float32)
    products = inputs.T.astype(np.float64) @ inputs / len(inputs)
    kept = np.array([True, True, True, False])
    made = refit(weight, 0, kept, products)
    assert (made[3] == 0).all()
    assert inputs @ made == pytest.approx(inputs @ weight, abs=0.01)
    turned = refit(weight.T[:, :, None, None], 1, kept, products)
    assert pytest.approx(made, abs=1e-6) == turned[:, :, 0, 0].T


def test_refitted_weights_answer_more_like_the_whole_net(
    parent: Parent, cutter: FilterCutter
) -> None:
    """On images that the weights were not fitted to."""
    inputs = parent.preprocessing.apply(parent.images)
    seen, unseen = inputs[parent.train_rows], inputs[parent.val_rows]
    products = measure_products(parent.network, [seen[:10], seen[10:]])
    expected = outputs_of(parent.network, unseen)
    refitting = FilterCutter(parent.network, "l1", SIZE, products)
    ratios = {EXPAND: 0.5, PROJECT: 0.3}
    bare, refitted = (
        np.abs(outputs_of(build_shrunk(parent.card, one.cut(ratios).state), unseen) - expected)
        for one in (cutter, refitting)
    )
    assert refitted.mean() < 0.5 * bare.mean()


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (paddle.nn.Linear(4, 2), 0),
        (paddle.nn.Conv2D(4, 2, 1), 1),
        (paddle.nn.Conv2D(4, 2, 3), None),
        (paddle.nn.Conv2D(4, 4, 1, groups=4), None),
        (paddle.nn.BatchNorm2D(4), None),
    ],
)
def test_which_layers_can_be_refitted(layer: paddle.nn.Layer, axis: int | None) -> None:
    assert input_axis(layer) == axis


def test_the_other_way_of_ranking_cuts_other_filters(parent: Parent, cutter: FilterCutter) -> None:
    other = FilterCutter(parent.network, "fpgm", SIZE)
    assert other.layers == cutter.layers
    one, two = (c.cut({PROJECT: 0.5}).state[f"{PROJECT}.weight"] for c in (cutter, other))
    assert one.shape == two.shape
    assert not np.array_equal(one, two)


def test_what_hurts_less_is_cut_more(cutter: FilterCutter) -> None:
    rows = [
        {"layer": layer, "filters": 1, "ratio": ratio, "loss": loss}
        for layer, losses in ((EXPAND, (0.01, 0.1)), (PROJECT, (0.5, 0.4)))
        for ratio, loss in zip((0.4, 0.8), losses, strict=True)
    ]
    ratios_at = cutter.by_sensitivity(rows)
    assert ratios_at(0.0) == pytest.approx({EXPAND: 0.004, PROJECT: 0.00008})
    assert ratios_at(1.0) == {EXPAND: 0.8, PROJECT: 0.8}
    levels = [ratios_at(level)[EXPAND] for level in np.linspace(0, 1, 11)]
    assert levels == sorted(levels)


def test_sensitivity_leaves_the_net_as_it_was(parent: Parent, cutter: FilterCutter) -> None:
    inputs = parent.preprocessing.apply(parent.images[:2])
    before = outputs_of(parent.network, inputs)
    products = measure_products(parent.network, [parent.preprocessing.apply(parent.images)])
    curves = []
    for one in (cutter, FilterCutter(parent.network, "l1", SIZE, products)):
        chosen = {name: one._groups[name] for name in (EXPAND, PROJECT)}
        every, one._groups = one._groups, chosen
        try:
            curves.append(one.measure_sensitivity(inputs))
        finally:
            one._groups = every
    bare, refitted = curves
    assert [row["ratio"] for row in bare[:4]] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert all(row["loss"] > 0 for row in bare)
    assert sum(row["loss"] for row in refitted) < 0.7 * sum(row["loss"] for row in bare)
    assert np.array_equal(outputs_of(parent.network, inputs), before)


# --- what is refused


def test_layers_that_cannot_be_cut(cutter: FilterCutter) -> None:
    with pytest.raises(PodiumError, match=r"trunk.blocks.6.depthwise_conv cannot be pruned; those"):
        cutter.cut({"trunk.blocks.6.depthwise_conv": 0.5})


def test_more_than_there_is(cutter: FilterCutter) -> None:
    with pytest.raises(
        PodiumError, match=r"0\.9999 of the multiply-accumulates cannot go: at most"
    ):
        cutter.cut_to(0.9999, cutter.uniform)


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1, "half", None])
def test_ratios_that_are_none(ratio: object) -> None:
    with pytest.raises(ValidationError, match="ratio"):
        PruneParams.model_validate(
            {"method": "l1", "ratio": ratio, "by": "uniform", "rounds": 1, "passes": 1}
        )
