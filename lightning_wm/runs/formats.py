"""What a file of a format may hold: one pydantic model each, for writing it and for reading what anybody wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from lightning_wm.errors import UserError
from lightning_wm.runs.untrusted import shown

Count = Annotated[int, Field(ge=0, lt=2**62)]
Number = Annotated[float, Field(allow_inf_nan=False)]
"""Finite; a whole number that a float holds is taken as well."""
Numbers = Annotated[list[Number], FailFast()]


class FileFormat(BaseModel):
    """Base of the formats: exact types, nothing is converted; keys of later versions are left out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    def as_json(self) -> dict[str, object]:
        """The file's content, its keys in the order of the fields."""
        return self.model_dump()


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], content: object, refuse: Callable[[str], UserError]) -> Model:
    """A file's content as its model.

    Args:
        model: of the format.
        content: of the file; nothing of it is believed.
        refuse: makes the error of what is wrong first: `seed is 'x'`, `mean is missing`.

    Raises:
        UserError: `refuse`'s.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise refuse(_fault(error)) from None


def _fault(error: ValidationError) -> str:
    """The first of an error's faults, the place as keys and positions with dots between them."""
    faults = error.errors(include_url=False, include_context=False)
    first = next(fault for fault in faults if fault["type"] != "default_factory_not_called")
    place = ".".join(named(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    if not place:
        return "it holds no object"
    return f"{place} is {shown(first['input'])}"


def named(key: object) -> str:
    """A key or a position as it can be put into a message."""
    is_name = isinstance(key, int) or (isinstance(key, str) and key.isidentifier() and len(key) < 40)
    return str(key) if is_name else shown(key)
