"""What these tests share with those of conversion."""

from tests.conversion.conftest import sources

__all__ = ["sources"]
