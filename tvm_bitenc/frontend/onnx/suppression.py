"""The loops of NonMaxSuppression: of boxes that overlap, the one with the best score remains."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T


def suppression(batch: int, classes: int, boxes: int) -> tirx.PrimFunc:
    """Return the function that chooses boxes of each class in each image of a batch.

    Its arguments are corners (batch, boxes, 4), scores (batch, classes, boxes), how many boxes of a
    class to choose at most, the overlap and the score beyond which one counts; and what it fills:
    rows of (image, class, box), how many of them, and its own memory.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name("non_max_suppression")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        corners = T.arg("corners", T.buffer((batch, boxes, 4), "float32"))
        scores = T.arg("scores", T.buffer((batch, classes, boxes), "float32"))
        most = T.arg("most", T.buffer((1,), "int64"))
        overlap = T.arg("overlap", T.buffer((1,), "float32"))
        least = T.arg("least", T.buffer((1,), "float32"))
        chosen = T.arg("chosen", T.buffer((batch * classes * boxes, 3), "int64"))
        count = T.arg("count", T.buffer((1,), "int64"))
        is_open = T.arg("is_open", T.buffer((boxes,), "int8"))
        memory = T.arg("memory", T.buffer((2,), "int64"))  # The best box, how many of a class.
        with T.sblock("root"):
            T.buffer_store(count, _int64(0), [0])
            with T.serial(0, batch) as image, T.serial(0, classes) as kind:
                with T.serial(0, boxes) as i:
                    is_good = scores[image, kind, i] > least[0]
                    T.buffer_store(is_open, tirx.Cast("int8", is_good), [i])
                T.buffer_store(memory, _int64(0), [1])
                with T.serial(0, boxes):
                    _find_best(scores, is_open, memory, image, kind, boxes)
                    with T.If(tirx.all(memory[0] >= 0, memory[1] < most[0])), T.Then():
                        for i, value in enumerate((image, kind, memory[0])):
                            T.buffer_store(chosen, tirx.Cast("int64", value), [count[0], i])
                        T.buffer_store(count, count[0] + 1, [0])
                        T.buffer_store(memory, memory[1] + 1, [1])
                        _close(corners, overlap, is_open, memory, image, boxes)
    return builder.get()


def _int64(value: int) -> tirx.IntImm:
    return tirx.IntImm("int64", value)


def _find_best(
    scores: tirx.Buffer,
    is_open: tirx.Buffer,
    memory: tirx.Buffer,
    image: tirx.Expr,
    kind: tirx.Expr,
    boxes: int,
) -> None:
    """Put the open box with the best score, the first of them, into the memory; -1 if none is."""
    T.buffer_store(memory, _int64(-1), [0])
    with T.serial(0, boxes) as i, T.If(is_open[i] != 0), T.Then():
        best = tirx.max(memory[0], _int64(0))
        is_better = scores[image, kind, i] > scores[image, kind, best]
        with T.If(tirx.any(memory[0] < 0, is_better)), T.Then():
            T.buffer_store(memory, tirx.Cast("int64", i), [0])


def _close(
    corners: tirx.Buffer,
    overlap: tirx.Buffer,
    is_open: tirx.Buffer,
    memory: tirx.Buffer,
    image: tirx.Expr,
    boxes: int,
) -> None:
    """Close the best box and those that overlap it."""
    best = memory[0]
    with T.serial(0, boxes) as i:
        inner = _common(corners, image, i, best, 0) * _common(corners, image, i, best, 1)
        outer = _area(corners, image, i) + _area(corners, image, best) - inner
        is_near = tirx.all(inner > 0, inner > overlap[0] * outer)
        with T.If(tirx.any(i == best, is_near)), T.Then():
            T.buffer_store(is_open, tirx.IntImm("int8", 0), [i])


def _ends(
    corners: tirx.Buffer, image: tirx.Expr, box: tirx.Expr, axis: int
) -> tuple[tirx.Expr, tirx.Expr]:
    """Lower and upper end of a box along an axis: its corners come in any order."""
    a, b = corners[image, box, axis], corners[image, box, axis + 2]
    return tirx.min(a, b), tirx.max(a, b)


def _common(
    corners: tirx.Buffer,
    image: tirx.Expr,
    one: tirx.Expr,
    other: tirx.Expr,
    axis: int,
) -> tirx.Expr:
    """Length that two boxes have in common."""
    (a, b), (c, d) = (_ends(corners, image, box, axis) for box in (one, other))
    return tirx.max(tirx.min(b, d) - tirx.max(a, c), tirx.FloatImm("float32", 0.0))


def _area(corners: tirx.Buffer, image: tirx.Expr, box: tirx.Expr) -> tirx.Expr:
    (a, b), (c, d) = (_ends(corners, image, box, axis) for axis in (0, 1))
    return (b - a) * (d - c)
