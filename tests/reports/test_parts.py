"""What more than one report tells is written and read back field by field."""

import json

from olmocr.reports.parts import ComponentBits, Interval, bits_per_weight
from olmocr.reports.typed_json import parse_as, report_json


def test_an_interval_comes_back_as_it_was():
    interval = Interval(low=0.25, high=0.5, confidence=0.95, resamples=1000)
    assert json.loads(report_json(interval)) == {"low": 0.25, "high": 0.5, "confidence": 0.95, "resamples": 1000}
    assert parse_as(Interval, report_json(interval)) == interval


def test_a_components_bits_come_back_as_they_were():
    bits = ComponentBits(component="head", parameters=1000, nbytes=625, bits_per_weight=5.0)
    assert bits.bits_per_weight == 8 * bits.nbytes / bits.parameters
    assert parse_as(ComponentBits, report_json(bits)) == bits


def test_bits_are_counted_for_each_weight_that_is_stored():
    assert bits_per_weight(nbytes=625, weights=1000) == 5.0
