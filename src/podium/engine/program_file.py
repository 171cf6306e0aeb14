"""A saved program (.pdmodel) with bytes that depend on the model alone.

Paddle notes the Python call stack down in operators, and PaddleSlim's graph passes emit operators
in an order that follows memory addresses. Both differ from run to run; neither means anything.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from pathlib import Path
from typing import Any

from paddle.base.proto import framework_pb2

_CALL_STACK = "op_callstack"


def make_reproducible(path: Path) -> None:
    """Rewrite the program at `path`: no call stacks (they also tell the maker's paths), operators
    in the one topological order that prefers the smallest serialised operator."""
    program = framework_pb2.ProgramDesc.FromString(path.read_bytes())
    for block in program.blocks:
        for operator in block.ops:
            kept = [attr for attr in operator.attrs if attr.name != _CALL_STACK]
            del operator.attrs[:]
            operator.attrs.extend(kept)
        ordered = _sort_operators(list(block.ops))
        del block.ops[:]
        block.ops.extend(ordered)
    path.write_bytes(program.SerializeToString(deterministic=True))


def _sort_operators(operators: list[Any]) -> list[Any]:
    """Kahn's algorithm; among the ready operators the one with the smallest bytes comes first.

    An inference program is in single-assignment form, so producers before consumers is the whole
    order. (Batch norm reads and writes its own statistics; a tensor with two quantised consumers is
    quantised twice, by operators that do the same.)
    """
    keys = [operator.SerializeToString(deterministic=True) for operator in operators]
    producers: defaultdict[str, set[int]] = defaultdict(set)
    for number, operator in enumerate(operators):
        for name in _names(operator.outputs):
            producers[name].add(number)
            if len({_what(operators[other]) for other in producers[name]}) > 1:
                raise RuntimeError(
                    f"different operators write {name}: no single-assignment program"
                )
    waits_for = [
        {other for name in _names(operator.inputs) for other in producers[name]} - {number}
        for number, operator in enumerate(operators)
    ]
    consumers: defaultdict[int, list[int]] = defaultdict(list)
    for number, others in enumerate(waits_for):
        for other in others:
            consumers[other].append(number)
    ready = [(keys[number], number) for number, others in enumerate(waits_for) if not others]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, number = heapq.heappop(ready)
        ordered.append(operators[number])
        for consumer in consumers[number]:
            waits_for[consumer].discard(number)
            if not waits_for[consumer]:
                heapq.heappush(ready, (keys[consumer], consumer))
    return ordered


def _what(operator: Any) -> tuple[str, ...]:
    """What an operator does to which tensor; scales and zero points aside."""
    return (
        operator.type,
        *(name for slot in operator.inputs if slot.parameter == "X" for name in slot.arguments),
    )


def _names(slots: Any) -> list[str]:
    return [name for slot in slots for name in slot.arguments]
