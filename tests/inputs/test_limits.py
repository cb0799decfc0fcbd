"""The bounds on what is read are those that the docs state."""

from olmocr.inputs.limits import LIMITS
from olmocr.rendering.image_file import MOST_PAGES, MOST_PIXELS
from tests.conftest import ROOT


def test_the_limits_in_the_docs_are_those_in_the_code():
    text = (ROOT / "docs/inputs.md").read_text()
    rows = (
        f"| {LIMITS.document_bytes >> 30} GiB | of a document that is downloaded",
        f"| {LIMITS.archive_members:,} members, or {LIMITS.archive_bytes >> 30} GiB unpacked |",
        f"where {LIMITS.harmless_bytes >> 20} MiB or more are packed tighter than 1 to {LIMITS.archive_ratio} |",
        f"| {LIMITS.stall_seconds:g} seconds of silence, {LIMITS.download_seconds / 3600:g} hour altogether |",
        f"| {MOST_PAGES:,} pages |",
        f"| {MOST_PIXELS:,} pixels |",
    )
    assert [row for row in rows if row not in text] == []
