"""Vision towers that tests compare with the stock one."""

# Rows and columns of patches: one token, less than a window, whole windows, windows cut at one or both edges.
SIZES = [(2, 2), (2, 6), (8, 8), (16, 24), (10, 8), (6, 60), (22, 18)]
