import pytest

from olmocr.conversion.macs import MACS, fitting_macs, limit, running_memory, smallest_mac
from tests.conversion.sources import QWEN2_VL, QWEN3_VL, SEVEN_BILLION

GIB = 1 << 30


def test_a_7b_models_cache_takes_56_kib_a_token():
    assert running_memory(SEVEN_BILLION, 0).kv_cache == 16_384 * 56 * 1024


def test_the_largest_page_goes_through_the_vision_tower_at_once():
    assert running_memory(SEVEN_BILLION, 0).vision == 92 * 92 * (1280 + 3 * 3420) * 2


def test_a_chunk_of_the_prompt_goes_through_the_language_model_at_once():
    assert running_memory(SEVEN_BILLION, 0).prefill == 2048 * (3584 + 3 * 18944) * 2


def test_a_vision_tower_without_gates_holds_two_inner_vectors():
    assert running_memory(QWEN2_VL, 0).vision == 92 * 92 * (1280 + 2 * 4 * 1280) * 2
    assert running_memory(QWEN3_VL, 0).vision == 80 * 80 * (1024 + 2 * 4096) * 2


def test_a_narrow_vision_mlp_leaves_attention_the_wider_half():
    narrow = SEVEN_BILLION | {"vision_config": SEVEN_BILLION["vision_config"] | {"intermediate_size": 1280}}
    assert running_memory(narrow, 0).vision == 92 * 92 * (1280 + 4 * 1280) * 2


def test_a_config_that_names_the_heads_size_is_believed():
    assert running_memory(QWEN3_VL, 0).kv_cache == 16_384 * 36 * 2 * 8 * 128 * 2


def test_a_model_in_float32_needs_twice_as_much():
    half, full = running_memory(SEVEN_BILLION, 0), running_memory(SEVEN_BILLION | {"torch_dtype": "float32"}, 0)
    assert (full.kv_cache, full.vision, full.prefill) == (2 * half.kv_cache, 2 * half.vision, 2 * half.prefill)


def test_the_peak_has_the_larger_of_two_activations_that_never_meet():
    memory = running_memory(SEVEN_BILLION, 1000)
    assert memory.vision < memory.prefill
    assert memory.total == 1000 + memory.kv_cache + memory.prefill


@pytest.mark.parametrize(("gib", "mib"), [(16, 10922.67), (32, 21845.33), (64, 49152)])
def test_the_limits_are_those_that_programs_on_such_macs_print(gib, mib):
    assert limit(gib) / (1 << 20) == pytest.approx(mib, abs=0.01)


def test_the_smallest_mac_is_the_first_whose_limit_is_not_passed():
    assert smallest_mac(limit(16)) == 16
    assert smallest_mac(limit(16) + 1) == 24
    assert smallest_mac(0) == 8
    assert smallest_mac(200 * GIB) is None


def test_every_size_of_mac_fits_or_does_not():
    assert list(fitting_macs(0)) == list(MACS)
    assert [gib for gib, fits in fitting_macs(25 * GIB).items() if fits] == [36, 48, 64, 96, 128]
