"""What a machine has and lacks for olmOCR, in a few lines."""
