"""A machine's report with something in every field."""

from olmocr.reports.machine import (
    DescribedMachine,
    MachineReport,
    MeasuredAnswers,
    MeasuredConversion,
    MeasuredGrowth,
    MeasuredGuidance,
    MeasuredMemory,
    MeasuredPage,
    MeasuredPart,
    MeasuredPass,
    MeasuredPasses,
    MeasuredPrefill,
    MeasuredReading,
    MeasuredResumption,
    MeasuredServing,
    MeasuredVision,
    MemoryLimit,
)

MIB = 1 << 20

FULL = MachineReport(
    machine=DescribedMachine(
        chip="Apple M2", architecture="arm64", system="macOS 15.0", processors=8, memory=16 << 30,
        available_memory=9 << 30, device="MLX 0.32.4 on metal", gpu="Apple M2", load=0.4,
    ),
    model="demo, 8bit", weights={"model.safetensors": "a" * 64}, is_demo=True, is_quick=False,
    parts=(
        MeasuredPart("conversion", "measured", (), 80.0),
        MeasuredPart("answers", "wrong", ("b.pdf, page 2: fallback", "c | d"), 20.0),
        MeasuredPart("growth", "failed", ("its process was ended by signal 6",), 3.0),
        MeasuredPart("mlx-vlm", "unmeasured", ("mlx-vlm is not installed",), 0.0),
    ),
    conversions=(MeasuredConversion("8bit", "fit", 2.5, 200 * MIB, "gpu", 26_064_592, "b" * 64, "same"),),
    answers=MeasuredAnswers(
        644, 12.0, 1, 0.5,
        (
            MeasuredPage("a.pdf", 1, "valid", 1, 0.0, 90, "c" * 64),
            MeasuredPage("b.pdf", 2, "fallback", 3, 1.0, 0, "d" * 64),
        ),
    ),
    readings=(
        MeasuredReading("olmocr", 1, False, "8bit", 6, (12.0, 10.0, 11.0), 660, 1.0, 100 * MIB, 6),
        MeasuredReading("olmocr", 8, False, "8bit", 6, (6.0, 5.0, 9.0), 660, 1.0, 150 * MIB, 6),
        MeasuredReading("olmocr", 8, True, "8bit", 6, (3.0, 2.5, 3.5), 660, 0.3, 150 * MIB, 6),
        MeasuredReading("mlx_vlm.server", 2, False, "8bit", 2, (20.0, 24.0, 22.0), 220, None, 400 * MIB, 2),
    ),
    passes=MeasuredPasses(
        256, 9, (MeasuredPass(1, 0.004), MeasuredPass(8, 0.0055), MeasuredPass(32, 0.012)),
        (MeasuredPrefill(512, 0, 0.05), MeasuredPrefill(512, 1536, 0.1)),
    ),
    vision=MeasuredVision(644, 1656, 3, 0.2, 0.3, 1e-5),
    guidance=MeasuredGuidance(4, (5.0, 6.0, 5.5), (5.0, 5.2, 5.1), 4, 3, 2),
    memory=MeasuredMemory(
        11 << 30,
        (
            MemoryLimit("wired", 11 << 30, 11 << 30, None),
            MemoryLimit("memory", 11 << 30, 11 << 30, 140 * MIB),
            MemoryLimit("cache", 1 << 30, 1 << 30, 90 * MIB),
        ),
        70 * MIB, 140 * MIB, 400 * MIB,
    ),
    growth=MeasuredGrowth(100, 80.0, 140 * MIB, 141 * MIB, 400 * MIB, 404 * MIB),
    serving=MeasuredServing(2.0, 1.0, 3.0, 3, True, True, 130),
    resumption=MeasuredResumption(8, 4, 0, 0),
    date="2026-11-28", seconds=600.0, versions={"olmocr": "0.1.0", "mlx": "0.32.4"},
)  # fmt: skip
