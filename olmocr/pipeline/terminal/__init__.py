"""What the command `olmocr` does beyond what a program needs: choose, show, print."""
