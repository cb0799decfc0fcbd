"""What each matrix costs -> how many bits it gets."""
