"""`evaluations.csv` and `curves.csv`: read, merged with new rows, written."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from lightning_wm.errors import UserError
from lightning_wm.report.rows import CurveRow, EvaluationRow

EVALUATIONS = "evaluations.csv"
CURVES = "curves.csv"
LARGEST_CELL = 50_000_000
"""Characters."""
Row = TypeVar("Row", EvaluationRow, CurveRow)
_COLUMN = {"value": "return"}
"""Fields whose column has a name that Python keeps for itself."""


def read_evaluations(folder: Path) -> list[EvaluationRow]:
    """The rows of `folder/evaluations.csv`; none where there is no such file.

    Raises:
        UserError: it is no file of this project, or damaged; the message names the line.
    """
    return _read(folder / EVALUATIONS, EvaluationRow)


def read_curves(folder: Path) -> list[CurveRow]:
    """The rows of `folder/curves.csv`; none where there is no such file.

    Raises:
        UserError: it is no file of this project, or damaged; the message names the line.
    """
    return _read(folder / CURVES, CurveRow)


def merged_evaluations(old: Iterable[EvaluationRow], new: Sequence[EvaluationRow]) -> list[EvaluationRow]:
    """Old and new rows, sorted by key.

    A new row replaces the old one with its key. A run that other code has trained anew replaces all rows of the run
    before: one table never compares two models as if they were one.
    """
    revisions = {row.trained: row.revision for row in new}
    kept = {row.key: row for row in old if revisions.get(row.trained, row.revision) == row.revision}
    kept.update({row.key: row for row in new})
    return [kept[key] for key in sorted(kept)]


def merged_curves(old: Iterable[CurveRow], new: Sequence[CurveRow]) -> list[CurveRow]:
    """Old and new rows, sorted by key; a run's new curve replaces its old one as a whole."""
    renewed = {row.run for row in new}
    return sorted([*(row for row in old if row.run not in renewed), *new], key=lambda row: row.key)


def write_evaluations(folder: Path, rows: Sequence[EvaluationRow]) -> Path:
    """Write `folder/evaluations.csv` as a whole; returns its path."""
    return _write(folder / EVALUATIONS, EvaluationRow, rows)


def write_curves(folder: Path, rows: Sequence[CurveRow]) -> Path:
    """Write `folder/curves.csv` as a whole; returns its path."""
    return _write(folder / CURVES, CurveRow, rows)


def _names(cls: type[Row]) -> list[str]:
    return [field.name for field in fields(cls)]


def _columns(cls: type[Row]) -> list[str]:
    return [_COLUMN.get(name, name) for name in _names(cls)]


def _read(path: Path, cls: type[Row]) -> list[Row]:
    if not path.exists():
        return []
    lines = _lines(path)
    columns = _columns(cls)
    if not lines or lines[0] != columns:
        raise UserError(
            f"{path} is not ours: its first line is not {','.join(columns)}; move it away, or type out=<another folder>"
        )
    readers = [(column, _READERS[str(field.type)]) for column, field in zip(columns, fields(cls), strict=True)]
    return [_row(cls, readers, line, path, number) for number, line in enumerate(lines[1:], 2)]


def _lines(path: Path) -> list[list[str]]:
    """The cells of every line."""
    limit = csv.field_size_limit(LARGEST_CELL)  # the module's own, 131,072, is that of 7,000 episodes
    try:
        return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); expected a file that this command wrote") from error
    finally:
        csv.field_size_limit(limit)


def _row(cls: type[Row], readers: Sequence[tuple[str, Reader]], cells: Sequence[str], path: Path, number: int) -> Row:
    if len(cells) != len(readers):
        raise UserError(
            f"{path}, line {number}: {len(cells)} cells, expected {len(readers)}; restore the file from a copy"
        )
    values = []
    for (column, read), cell in zip(readers, cells, strict=True):
        try:
            values.append(read(cell))
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: {column} is {cell[:40]!r}; restore the file from a copy"
            ) from error
    return cls(*values)


Reader: TypeAlias = Callable[[str], Any]
_READERS: Mapping[str, Reader] = {
    "str": str,
    "int": int,
    "float": float,
    "float | None": lambda cell: float(cell) if cell else None,
    "tuple[float, ...]": lambda cell: tuple(map(float, cell.split())),
}


def _cell(value: object) -> str:
    """A value as text: returns in full, other numbers to a thousandth."""
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def _write(path: Path, cls: type[Row], rows: Sequence[Row]) -> Path:
    from lightning_wm.runs.files import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_columns(cls))
    writer.writerows([_cell(vars(row)[name]) for name in _names(cls)] for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text.getvalue():
        write_text(path, text.getvalue())
    return path
