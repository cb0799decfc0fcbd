"""A converted folder answers pages, in this process. Call olmocr.device.start_mlx before importing from here."""
