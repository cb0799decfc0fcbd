"""Python with only what macOS has, on Linux: python -m tests.as_on_macos [what pytest takes] (docs/macos.md)."""
