"""A machine measures itself: docs/doctor.md."""
