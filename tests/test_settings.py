"""Fields that say what they are: their ranges, choices and docstring."""

from dataclasses import dataclass

import pytest

from olmocr.errors import UsageError
from olmocr.settings import Range, documented, require_settings, setting


@documented
@dataclass(frozen=True)
class Oven:
    """What an oven is asked to do."""

    degrees: int = setting(180, "How hot.", note="In Celsius.", range=Range(30, 250, "degrees"))
    minutes: float | None = setting(None, "How long.", range=Range(0, unit="minutes", is_above=True))
    loaves: int = setting(1, "How many.", range=Range(1))
    heat: str = setting("top", "From where.", choices=("top", "bottom"))

    def __post_init__(self):
        require_settings(self)


@pytest.mark.parametrize(
    "allowed",
    [{"degrees": 30}, {"degrees": 250}, {"minutes": 0.01}, {"minutes": None}, {"loaves": 10**9}, {"heat": "bottom"}],
)
def test_a_value_at_the_edge_of_its_range_is_taken(allowed):
    assert vars(Oven(**allowed)).items() >= allowed.items()


@pytest.mark.parametrize(
    ("refused", "sentence"),
    [
        ({"degrees": 29}, "degrees must be 30 to 250 degrees, not 29"),
        ({"degrees": 251}, "degrees must be 30 to 250 degrees, not 251"),
        ({"minutes": 0}, "minutes must be more than 0 minutes, not 0"),
        ({"minutes": float("nan")}, "minutes must be more than 0 minutes, not nan"),
        ({"loaves": 0}, "loaves must be 1 or more, not 0"),
        ({"heat": "left"}, "heat must be one of top, bottom, not 'left'"),
    ],
)
def test_a_value_out_of_its_range_is_one_sentence(refused, sentence):
    with pytest.raises(UsageError) as caught:
        Oven(**refused)
    assert str(caught.value) == sentence


def test_the_docstring_tells_of_each_field():
    assert Oven.__doc__.splitlines() == [
        "What an oven is asked to do.",
        "",
        "Attributes:",
        "    degrees: How hot. In Celsius. (30 to 250 degrees)",
        "    minutes: How long. (more than 0 minutes)",
        "    loaves: How many. (1 or more)",
        "    heat: From where.",
    ]
