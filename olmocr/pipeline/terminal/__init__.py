"""What the command `olmocr` does that a program does not need: choose, show, print."""
