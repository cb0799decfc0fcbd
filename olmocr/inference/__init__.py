"""A converted folder answers pages, in this process. Call ``runtime.device.start_mlx`` before importing from here."""
