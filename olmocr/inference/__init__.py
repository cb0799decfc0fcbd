"""Read pages with a converted folder, in this process. Call ``runtime.device.start_mlx`` before importing from here."""
