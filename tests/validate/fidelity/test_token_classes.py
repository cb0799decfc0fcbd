"""Every token has a class."""

from olmocr.validate.fidelity.token_classes import token_classes


def test_every_token_has_a_class():
    pieces = ["---\nprimary_language: en\n", "---\n", "<ta", "ble>", "Price", " 12", ".", "\n", r"\(", "x", r"^2\)"]
    assert token_classes(pieces) == (
        "front matter", "front matter", "HTML tags", "HTML tags", "letters", "digits", "punctuation", "spaces",
        "LaTeX", "LaTeX", "LaTeX", "end",
    )  # fmt: skip


def test_two_prices_are_no_formula():
    assert token_classes(["$7", " and ", "$8"]) == ("digits", "letters", "digits", "end")
