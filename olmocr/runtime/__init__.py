"""What this machine is, and the versions of what runs on it."""
