"""The command ``olmocr``: ``olmocr serve …`` serves a model, and all else reads documents.

A workspace that is called serve is given as ./serve.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run what the first argument says."""
    if sys.argv[1:2] == ["serve"]:
        from olmocr.serving.__main__ import app

        app(args=sys.argv[2:], prog_name="olmocr serve")
    else:
        from olmocr.pipeline.__main__ import app as read_documents

        read_documents()


if __name__ == "__main__":
    main()
