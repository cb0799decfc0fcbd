"""Known repositories: the best that fits is chosen, and one with a known fault never is."""

from dataclasses import replace

from olmocr.hub.known_models import best_for, known_models, warning_of

GB = 10**9


def test_the_table_is_complete_and_the_best_comes_first():
    models = known_models()
    assert [each.bits for each in models] == sorted((each.bits for each in models), reverse=True)
    for each in models:
        assert each.weight_bytes < each.peak_bytes
        assert each.repository.count("/") == 1


def test_more_memory_gets_more_bits_and_too_little_gets_none():
    models = known_models()
    found = [best_for(gb * GB, models) for gb in (4, 8, 12, 100)]
    assert [each and each.bits for each in found] == [None, 4, 8, 8]


def test_a_repository_with_a_known_fault_is_never_chosen_and_its_fault_is_told():
    best, *others = known_models()
    models = [replace(best, warning="writes nonsense"), *others]
    assert best_for(100 * GB, models) == others[0]
    assert warning_of(best.repository.upper(), models) == "writes nonsense"
    assert warning_of(others[0].repository, models) is None
    assert warning_of("somebody/else", models) is None
