"""What this machine is, and the versions of the software on it."""
