import mlx.core as mx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.conversion.calibrated.rounding.packing import pack_codes, unpack_codes


@settings(deadline=None, max_examples=60)
@given(
    bits=st.sampled_from([3, 4, 5, 6, 8]),
    group_size=st.sampled_from([32, 64, 128]),
    rows=st.integers(1, 5),
    groups=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_packed_codes_are_read_back_by_mlx_and_by_us(bits, group_size, rows, groups, seed):
    random = np.random.default_rng(seed)
    codes = random.integers(0, 1 << bits, (rows, groups * group_size)).astype(np.uint8)
    scales, biases = (random.normal(size=(rows, groups)).astype(np.float32) for _ in range(2))
    packed = pack_codes(codes, bits)
    assert packed.dtype == np.uint32
    assert packed.shape == (rows, groups * group_size * bits // 32)
    with mx.stream(mx.cpu):
        parts = [mx.array(part) for part in (packed, scales, biases)]
        read = np.array(mx.dequantize(*parts, group_size=group_size, bits=bits))
    expected = codes.reshape(rows, groups, -1) * scales[:, :, None] + biases[:, :, None]
    np.testing.assert_allclose(read, expected.reshape(rows, -1), rtol=1e-5, atol=1e-4)
    assert (unpack_codes(packed, bits) == codes).all()
