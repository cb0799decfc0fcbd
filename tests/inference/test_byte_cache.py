"""A cache that is bounded in bytes."""

from olmocr.inference.byte_cache import Kept

"""Keys and values of one token of the random model: 1 layer, 1 head of 32 numbers, float32."""


def test_the_least_recently_used_value_goes_first():
    kept = Kept(10)
    for name in "abc":
        kept.put(name, name.upper(), 3)
    assert kept.get("a") == "A"
    kept.put("d", "D", 3)
    kept.put("too large", "E", 11)
    assert [kept.get(name) for name in ("a", "b", "c", "d", "too large")] == ["A", None, "C", "D", None]
    kept.shrink(3)
    assert [kept.get(name) for name in "acd"] == [None, None, "D"]
