"""What these tests share with those of conversion."""

from tests.conversion.conftest import reports

__all__ = ["reports"]
