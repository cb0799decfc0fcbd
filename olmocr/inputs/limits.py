"""How large one input may be, and how long a download may take."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class InputLimits:
    """Limits on inputs. What exceeds one is refused, with a sentence that says why.

    Attributes:
        document_bytes: of one document that is downloaded, unpacked or read from standard input.
        archive_members: in one archive.
        archive_bytes: of one archive, unpacked.
        archive_ratio: unpacked bytes for each byte of an archive, checked above ``harmless_bytes``.
        harmless_bytes: an archive that unpacks to no more than this may be packed at any ratio.
        stall_seconds: between two pieces of a download.
        download_seconds: for one complete download.
    """

    document_bytes: int = 2 * _GIB
    archive_members: int = 100_000
    archive_bytes: int = 64 * _GIB
    archive_ratio: int = 200
    harmless_bytes: int = 64 * _MIB
    stall_seconds: float = 60.0
    download_seconds: float = 3600.0

    def is_bomb(self, unpacked: int, packed: int) -> bool:
        """Return whether an archive of *packed* bytes that unpacks to *unpacked* bytes is refused."""
        if unpacked > self.archive_bytes:
            return True
        return unpacked > self.harmless_bytes and unpacked > self.archive_ratio * packed


LIMITS = InputLimits()
"""The limits that apply by default."""
