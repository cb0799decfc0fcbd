"""What a fidelity report tells a person, line by line."""

from dataclasses import replace

from olmocr.reports.fidelity import (
    BrokenLimit,
    Cost,
    Distribution,
    FidelityReport,
    FlipClass,
    FreeRunning,
    GateResult,
    Parity,
    Structure,
    TextErrors,
    Truncation,
    fidelity_lines,
    fidelity_verdict,
)
from olmocr.reports.parts import Interval

ERRORS = TextErrors(
    pages=4, character_error_rate=0.0125, word_error_rate=0.031, numbers=40, exact_numbers=39, tables=3, exact_tables=2,
    cells=30, exact_cells=28,
)  # fmt: skip
STRUCTURE = Structure(
    pages=4, valid_pages=3, valid_first_answers=2, stop_reasons={"stop": 4}, loops=1, mean_attempts=1.75,
    attempts={"1": 3},
)  # fmt: skip
COST = Cost(
    weight_bytes=5_640_000_000, bits_per_weight=5.444, components=(), computed_in="bfloat16", load_seconds=2.25,
    peak_memory=6_820_000_000, prefill_rate=810.4, decode_rate=31.6, pages_per_minute=4.26,
)  # fmt: skip
DISTRIBUTION = Distribution(
    positions=2000, mean_kl=0.0012, mean_kl_interval=Interval(0.0009, 0.0016, 0.95, 2000), median_kl=1e-5, p99_kl=0.02,
    top1_agreement=0.99125, pages_without_flip=1, median_first_divergence=12.5,
    flips=(FlipClass("digit", 50, 2), FlipClass("letter", 900, 7)), by_position=(),
    truncation=Truncation(128, 0.0, 0.0, 64, 0.00118, 0.00117),
)  # fmt: skip
REPORT = FidelityReport(
    model="m", source="s", recipe="4bit", weights={}, source_weights={}, page_set="pages", page_hashes={},
    longest_side=644, max_tokens=4000, distribution=DISTRIBUTION,
    free_running=FreeRunning(4, 2, 1, ERRORS, replace(ERRORS, numbers=41), replace(ERRORS, numbers=42), None),
    structure=STRUCTURE, source_structure=replace(STRUCTURE, loops=0), cost=COST,
    source_cost=replace(COST, bits_per_weight=None),
    parity=Parity("transformers", 4, 2000, 3.4e-7, 1e-6, 2e-3, 0.9995, 3),
    gate=GateResult("gates.yaml", "4bit", False, (BrokenLimit("mean_kl", 0.001, 0.0012),)), pages=(), device="MLX",
    machine="", versions={},
)  # fmt: skip
WRONG = "1.25% of characters, 3.10% of words wrong; correct: 39 of"
TABLES = "numbers, 2 of 3 tables, 28 of 30 cells"


def unwrapped(lines):
    """Return lines as they were before they were wrapped: a limit and a cut have lines of their own."""
    whole = []
    for line in lines:
        if line.startswith(" " * 14) and not line.strip().startswith(("mean_kl", "cut to")):
            whole[-1] += " " + line.strip()
        else:
            whole.append(line)
    return whole


def test_everything_that_was_measured_is_told():
    lines = fidelity_lines(REPORT)
    assert max(map(len, lines)) <= 80
    assert unwrapped(lines) == [
        "m against s: 4 pages (pages, 644 px)",
        "divergence    mean 1.20e-03 nats (9.00e-04 to 1.60e-03), median 1.00e-05, 99th percentile 2.00e-02, "
        "over 2000 positions",
        "              cut to 128 tokens it is 1.170e-03, uncut 1.180e-03 (64 positions)",
        "same token    99.125%; 1 of 4 pages without a flip, elsewhere the first is at position 12.5",
        "flips         2 of 50 digit, 7 of 900 letter",
        "identical     2 of 4 pages, 1 in a loop",
        f"from source   {WRONG} 40 {TABLES}",
        f"from truth    {WRONG} 41 {TABLES}",
        f"   source's   {WRONG} 42 {TABLES}",
        "valid         3 of 4 pages, 2 at the first answer; 1.75 attempts a page, 1 pages with a loop",
        "   source's   3 of 4 pages, 2 at the first answer; 1.75 attempts a page, 0 pages with a loop",
        "cost          5.640 GB, 5.44 bits per weight, loaded in 2.2 s, at most 6.82 GB; 810 tokens/s read, "
        "32 written, 4.3 pages/min",
        "   source's   5.640 GB, loaded in 2.2 s, at most 6.82 GB; 810 tokens/s read, 32 written, 4.3 pages/min",
        "parity        with transformers: mean 3.40e-07 nats, at most 1.00e-06, logarithms up to 2.00e-03 apart, same "
        "token 99.950%, 3 of 4 texts identical",
        "gate          1 limits broken (gates.yaml, 4bit)",
        "              mean_kl is 0.001, measured 0.0012",
    ]
    assert fidelity_verdict(REPORT) == (
        "m against s: mean divergence 1.20e-03 nats, the same token at 99.125% of 2000 positions"
        "; its limits are NOT met"
    )


def test_what_was_not_measured_is_left_out():
    bare = replace(
        REPORT, distribution=replace(DISTRIBUTION, median_first_divergence=None), parity=None, gate=None,
        free_running=replace(REPORT.free_running, against_truth=None, source_against_truth=None),
    )  # fmt: skip
    lines = unwrapped(fidelity_lines(bare))
    assert lines[3] == "same token    99.125%; 1 of 4 pages without a flip"
    kinds = [line[:14].strip() for line in lines[1:]]
    assert kinds == [
        "divergence",
        "",
        "same token",
        "flips",
        "identical",
        "from source",
        "valid",
        "source's",
        "cost",
        "source's",
    ]
    assert fidelity_verdict(bare).endswith("of 2000 positions")
    good = replace(bare, gate=GateResult("gates.yaml", "4bit", True, ()))
    assert fidelity_lines(good)[-1] == "gate          passed (gates.yaml, 4bit)"
    assert fidelity_verdict(good).endswith("; its limits are met")
