"""What is said in a pipe: enough to see that it lives, and not more."""

from __future__ import annotations

import pytest

from podium import progress
from podium.progress import EpochBar, track


def test_a_long_epoch_says_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with EpochBar("epoch 3/9", n_images=100, done=20) as bar:
        for _ in range(4):
            bar.advance(10, loss=0.5, lr=1e-3)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 3/9: 40/100 images, loss 0.5000, 1 images/s",
        "epoch 3/9: 60/100 images, loss 0.5000, 1 images/s",
    ]


def test_other_ranks_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EPOCH_LINE_EVERY_S", 0.0)
    with EpochBar("epoch 1/1", n_images=10, shown=False) as bar:
        bar.advance(10, loss=0.5, lr=1e-3)
    assert capsys.readouterr().err == ""


def test_tracking_changes_nothing_and_says_little(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(1000), 1000, "decode")) == list(range(1000))
    assert capsys.readouterr().err == ""
