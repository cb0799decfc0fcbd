"""Measurements take turns."""

from olmocr.doctor.measure.passes import in_turn


def test_all_take_turns_forwards_and_backwards_and_the_first_run_does_not_count():
    order = []

    def timed(name, seconds):
        taken = iter(seconds)

        def run():
            order.append(name)
            return next(taken)

        return run

    assert in_turn([timed("a", [90, 1, 5, 2]), timed("b", [90, 4, 4, 9])], 3) == [2, 4]
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
