"""What all commands do alike, and show."""
