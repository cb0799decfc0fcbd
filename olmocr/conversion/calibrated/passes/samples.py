"""Pages used to look at a source while it is quantized, as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class CalibrationPage:
    """One page as the model sees it, with the answer that the model gets, token by token.

    *token_ids* int32 (tokens,): prompt, image, answer, and the token that ends it. *position_ids* int32 (3, tokens):
    frame, row and column of each token, as M-RoPE has them. *answer_start* is the index of the answer's first token.
    *pixel_values* float32 (patches, 3 * 2 * 14 * 14) and *grid_thw* int32 (1, 3), frames, rows and columns of patches,
    are as the image processor makes them.

    *name* and *sha256* identify the page, *kind* says what it looks like (``clean``, ``blurred`` …), *whose_text* where
    its answer comes from.
    """

    name: str
    sha256: str
    kind: str
    whose_text: str
    token_ids: npt.NDArray[np.int32]
    position_ids: npt.NDArray[np.int32]
    answer_start: int
    pixel_values: npt.NDArray[np.float32]
    grid_thw: npt.NDArray[np.int32]
