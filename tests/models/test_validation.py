from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from models.validation import in_words


@dataclass(frozen=True)
class Settings:
    epochs: Annotated[int, Field(ge=1)] = 1
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    solver: Literal["lbfgs", "adam"] = "adam"
    flip: bool = False

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.flip and self.epochs > 5:
            raise ValueError("flip works with 5 epochs at most")
        return self


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"epochs": 0}, "m.epochs must be at least 1; got 0"),
        ({"epochs": "many"}, "m.epochs must be a whole number; got 'many'"),
        ({"epochs": 1.5}, "m.epochs must be a whole number; got 1.5"),
        ({"rate": 0}, "m.rate must be above 0; got 0"),
        ({"rate": "low"}, "m.rate must be a number; got 'low'"),
        ({"rate": float("inf")}, "m.rate must be a finite number; got inf"),
        ({"share": 1}, "m.share must be below 1; got 1"),
        ({"share": float("nan")}, "m.share must be a finite number; got nan"),
        ({"solver": "sgd"}, "m.solver must be one of 'lbfgs', 'adam'; got 'sgd'"),
        ({"flip": "perhaps"}, "m.flip must be true or false; got 'perhaps'"),
        ({"solver": 3}, "m.solver must be one of 'lbfgs', 'adam'; got 3"),
        ({"flip": True, "epochs": 6}, "flip works with 5 epochs at most"),
    ],
)
def test_a_wrong_setting_in_plain_words(setting: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**setting)
    assert in_words(caught.value, "m") == [line]


def test_all_that_is_wrong_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(epochs=0, rate=-1)
    assert in_words(caught.value) == ["epochs must be at least 1; got 0", "rate must be above 0; got -1"]


def test_a_kind_that_has_no_words_of_ours_keeps_pydantics() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Annotated[str, Field(max_length=2)]).validate_python("abc")
    (line,) = in_words(caught.value)
    assert line == "is refused: string should have at most 2 characters; got 'abc'"
