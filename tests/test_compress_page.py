"""The page of the candidates: what it says, and that equal numbers give equal bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from podium.slim.compress_page import (
    CompressPage,
    find_front,
    write_clocks_plot,
    write_compress_report,
)


def make_row(mb: float, score: float) -> dict[str, Any]:
    return {
        "stored": "float32",
        "arithmetic": "float32",
        "bytes": int(mb * 1e6),
        "transfer_bytes": int(mb * 9e5),
        "parameters": 3_400_000,
        "mflops": 250.7,
        "accuracy": score,
        "drop": 0.9 - score,
        "drop_low": -0.01,
        "drop_high": 0.02,
        "changed": 3,
        "lost": 2,
        "gained": 1,
        "p_value": 1.0,
        "max_difference": 0.1,
        "mean_difference": 0.001,
    }


PAGE = CompressPage(
    competition="<lemons> & co",
    metric="accuracy",
    shipped="trained-int8-onnx",
    reason="trained-int8-onnx ships: the fewest bytes of 2 that may. It was cheap",
    rows={
        "trained-float32-paddle": make_row(13.7, 0.9),
        "trained-int8-onnx": make_row(3.8, 0.89),
    },
    missing={"student-int8-onnx": "failed: no <layer> of that name"},
    scale={"linear-thumbnail": make_row(0.012, 0.4)},
    sensitivity={
        "pruned": [
            {"round": 1, "layer": f"trunk.blocks.{layer}", "ratio": ratio, "loss": ratio * layer}
            for layer in range(3)
            for ratio in (0.1, 0.3, 0.5)
        ]
    },
)


def test_the_page_is_the_same_each_time_and_escapes_what_it_shows(tmp_path: Path) -> None:
    for name in "ab":
        write_compress_report(tmp_path / name, PAGE)
    files = [(tmp_path / name / "compress.html").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    text = files[0].decode("utf-8")
    assert "&lt;lemons&gt; &amp; co" in text
    assert "failed: no &lt;layer&gt; of that name" in text
    assert '<tr class="shipped"><td>trained-int8-onnx</td>' in text
    assert text.count("<svg") == 2
    assert "linear-thumbnail (for scale)</td><td>0.0120</td>" in text
    rows = pd.read_csv(tmp_path / "a/candidates.csv")
    assert rows["mb"].tolist() == [13.7, 3.8]
    assert rows["score"].tolist() == [0.9, 0.89]


def test_a_round_of_pruning_has_lines_of_its_own(tmp_path: Path) -> None:
    rows = PAGE.sensitivity["pruned"]
    again = [{**row, "round": 2, "ratio": row["ratio"] + 0.1} for row in rows]
    page = replace(PAGE, sensitivity={"pruned": [*rows, *again]})
    write_compress_report(tmp_path, page)
    text = (tmp_path / "compress.html").read_text(encoding="utf-8")
    assert "trunk.blocks.2, round 2" in text
    assert text.count("stroke-dasharray") >= 3
    write_compress_report(tmp_path, PAGE)
    text = (tmp_path / "compress.html").read_text(encoding="utf-8")
    assert "round 1" not in text
    assert "stroke-dasharray" not in text


def test_a_runtime_mode_is_labelled_as_one_and_none_need_ship(tmp_path: Path) -> None:
    mode = {**make_row(13.7, 0.9), "arithmetic": "bf16", "parity": 0.018}
    page = replace(PAGE, shipped=None, rows={**PAGE.rows, "trained-bf16-paddle": mode})
    write_compress_report(tmp_path, page)
    text = (tmp_path / "compress.html").read_text(encoding="utf-8")
    assert text.count("float32 on disk, computes in bf16") == 1
    assert "<td>2e-02</td>" in text
    assert 'class="shipped"' not in text


def test_clocks_stand_in_a_picture_of_their_own(tmp_path: Path) -> None:
    clocks = {name: {"latency_p50_ms": 5.0} for name in PAGE.rows}
    write_clocks_plot(tmp_path / "clocks.png", PAGE, clocks)
    assert (tmp_path / "clocks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ({"a": (1, 0.5), "b": (2, 0.9), "c": (3, 0.8)}, ["a", "b"]),
        ({"a": (1, 0.9), "b": (1, 0.5), "c": (2, 0.9)}, ["a"]),
        ({}, []),
    ],
)
def test_the_front_is_what_nothing_beats(
    points: dict[str, tuple[float, float]], front: list[str]
) -> None:
    assert find_front(points) == front
