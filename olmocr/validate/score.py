"""How far an answer is from the truth. The one door to rapidfuzz."""

from __future__ import annotations

from olmocr.errors import MissingDependencyError


def character_error_rate(text: str, truth: str) -> float:
    """Return the Levenshtein distance of *text* from *truth*, over the truth's characters.

    It can exceed 1. An empty truth counts as one character, so that text where there is none is an error.

    Raises:
        MissingDependencyError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise MissingDependencyError(
            "rapidfuzz is not installed; install it with: pip install 'olmocr[validate]'"
        ) from error
    return Levenshtein.distance(text, truth) / max(1, len(truth))
