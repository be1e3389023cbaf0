"""Layer maps: which layer of the teacher each layer of the student follows, counted from 0."""

from typing import Literal

from jaxdistill.errors import UserError

Kind = Literal["uniform", "top", "bottom"]
KINDS = ("uniform", "top", "bottom")


def layer_map(kind: Kind, teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """The teacher's layer for every layer of the student (TinyBERT, arXiv 1909.10351, section 4.4).

    With N and M layers counted from 1: uniform g(m) = m·N/M, top g(m) = m + N − M, bottom g(m) = m.

    Raises:
      UserError: the student is deeper, or for the uniform map M does not divide N.
    """
    if kind not in KINDS:
        raise UserError(f"layer map {kind!r}: choose one of {', '.join(KINDS)}")
    if student_layers > teacher_layers:
        raise UserError(f"a student of {student_layers} layers can't follow a teacher of {teacher_layers}")
    if kind == "uniform" and teacher_layers % student_layers:
        raise UserError(
            f"{teacher_layers} teacher layers cannot be spread evenly over {student_layers} student layers: "
            f"choose a student depth that divides {teacher_layers}"
        )
    step = teacher_layers // student_layers if kind == "uniform" else 1
    first = teacher_layers - student_layers if kind == "top" else step - 1
    return tuple(range(first, first + step * student_layers, step))


def spread(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """The layers that a student starts from: floor(i·(N−1)/(M−1) + ½), both ends among them (arXiv 1910.01108).

    [0, 2, 4, 7, 9, 11] for 12 → 6, [0, 3, 5] for 6 → 3; a single layer is the first.

    Raises:
      UserError: the student is deeper.
    """
    if student_layers > teacher_layers:
        raise UserError(f"{student_layers} layers can't be taken from a teacher of {teacher_layers}")
    gaps = max(student_layers - 1, 1)
    return tuple((2 * layer * (teacher_layers - 1) + gaps) // (2 * gaps) for layer in range(student_layers))
