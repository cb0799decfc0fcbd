"""How much one input may hold, and how long a download may take."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class InputLimits:
    """What is past these is refused, with a sentence.

    Attributes:
        document_bytes: of one document that is downloaded, unpacked or read from standard input.
        archive_members: of one archive.
        archive_bytes: of one archive, unpacked.
        archive_ratio: bytes unpacked for each byte of an archive, where they are more than ``harmless_bytes``.
        harmless_bytes: an archive that unpacks to so little may be packed as tightly as it likes.
        stall_seconds: between two pieces of a download.
        download_seconds: for one whole download.
    """

    document_bytes: int = 2 * _GIB
    archive_members: int = 100_000
    archive_bytes: int = 64 * _GIB
    archive_ratio: int = 200
    harmless_bytes: int = 64 * _MIB
    stall_seconds: float = 60.0
    download_seconds: float = 3600.0

    def is_bomb(self, unpacked: int, packed: int) -> bool:
        """Say whether an archive of *packed* bytes that unpacks to *unpacked* ones is refused."""
        if unpacked > self.archive_bytes:
            return True
        return unpacked > self.harmless_bytes and unpacked > self.archive_ratio * packed


LIMITS = InputLimits()
"""What holds where nothing else is said."""
