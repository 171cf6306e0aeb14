"""The one table of tasks: the only place where a concrete task is chosen.

Adding a task = its two halves + one line in each table.
"""

from __future__ import annotations

from typing import Any

from podium.tasks.classification.data import ClassificationData
from podium.tasks.net_protocol import NetTask
from podium.tasks.protocol import DataTask

DATA_TASKS = {"classification": ClassificationData}


def make_data_task(name: str, **facts: Any) -> DataTask:
    """The data half of the task that `competition.task` names; `facts` are its fields."""
    return DATA_TASKS[name](**facts)


def build_net_task(data_task: DataTask, **facts: Any) -> NetTask:
    """The tensor half that goes with `data_task`; `facts` are its fields. Imports Paddle."""
    from podium.tasks.classification.net import ClassificationNet

    nets = {"classification": ClassificationNet}
    return nets[data_task.name](len(data_task.classes), **facts)
