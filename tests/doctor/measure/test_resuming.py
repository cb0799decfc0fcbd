"""How far a run was when it was killed."""

from olmocr.doctor.measure.resuming import lines


def test_a_line_that_was_being_written_does_not_count(tmp_path):
    ledger = tmp_path / "ledger"
    assert lines(ledger) == []
    ledger.write_text("a.pdf 1\nb.pdf")
    assert lines(ledger) == ["a.pdf 1"]
    ledger.write_text("a.pdf 1\nb.pdf 2\n")
    assert lines(ledger) == ["a.pdf 1", "b.pdf 2"]
