"""Fixtures for all tests: the math environment, and a repository in miniature."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from podium.runtime import configure_math
from tests.competition import copy_clone, make_plain_run

configure_math()
# In the background of a script SIGINT is ignored, and what is started there ignores it, too: but the
# tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what one test process makes for all of them."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def plain_run(shared_folder: Path) -> tuple[str, Path]:
    """What dvc said of the first `dvc repro` of a clone, and the clone."""
    return make_plain_run(shared_folder / "plain run")


@pytest.fixture(scope="session")
def first_repro(plain_run: tuple[str, Path]) -> str:
    """What dvc said."""
    return plain_run[0]


@pytest.fixture(scope="session")
def plain(plain_run: tuple[str, Path]) -> Path:
    """The clone, which all test processes share: to be read, or copied."""
    return plain_run[1]


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return copy_clone(plain, tmp_path / "clone")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole DAG first: they are long, and of two test processes one makes the run that
    they copy while the other one has the rest to do."""
    items.sort(key=lambda item: item.get_closest_marker("dag") is None)
