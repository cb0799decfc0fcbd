"""Whatever a conversion is offered in goes the whole way: converted, validated, read here and by stock, and onward.

The ways are made from the product's own lists, which the docs and the command's help must tell alike: a mode, recipe
or option that is new is tried here, or a test fails.
"""

import asyncio
import functools
import inspect
import re
from dataclasses import dataclass
from typing import get_args

import mlx.core as mx
import mlx_vlm
import pytest
from mlx.utils import tree_map
from PIL import Image
from typer.testing import CliRunner

from olmocr.conversion.recipe import BITS, DTYPES, FIXED_MODES, GROUP_SIZES, Head, Method, Mode, recipe_names
from olmocr.convert_to_mlx import app, convert_to_mlx
from olmocr.inference.engine import Engine
from olmocr.model_folder import ModelFolder
from olmocr.page import PageImage, PageRequest, chat_prompt
from olmocr.publish.reproduce import reproduce
from olmocr.validate.weights.check import check_weights
from tests.checkpoints import (
    FP8_CONFIG,
    demo_checkpoint,
    fp8_tensors,
    nested_config,
    new_keys,
    read_tensors,
    write_tensors,
)
from tests.conftest import CHECKPOINT, DEVICE, ROOT
from tests.publish.pushes import REPO, files_of, push
from tests.publish.samples import model_copy
from tests.serving.servers import CHAT, chat, data_uri, picture, running

DEFAULT = "mixed"
QUICKLY = ("-q", DEFAULT, "--calibration-tokens", "300")  # by its own method, on a few pages
TOKENS = 16


@dataclass(frozen=True)
class Way:
    """How to convert: options of the command, a rule for the language model if it is by a recipe of its own."""

    name: str
    options: tuple[str, ...] = ()
    rule: str | None = None
    source: str = "plain"


def _rule(mode: str, bits: int = 4) -> str:
    return f"mode: {mode}" if mode in FIXED_MODES else f"mode: {mode}, bits: {bits}"


METHODS, MODES, HEADS = get_args(Method), get_args(Mode), get_args(Head)
RECIPES = [
    Way(f"{name}, {how}", ("-q", name, "--method", how))
    for name in recipe_names()
    for how in METHODS
    if how != "calibrated" or name in (DEFAULT, "3bit", "none")  # a minute each, and the same way
]
RULES = [
    *(Way(f"{mode}, {how}", ("--method", how), _rule(mode)) for mode in MODES for how in ("stock", "fit")),
    *(Way(f"{bits} bits by {size}", (), f"bits: {bits}, group_size: {size}") for bits in BITS for size in GROUP_SIZES),
    *(Way(f"{mode}, {head} head", (), _rule(mode, 6), head) for mode in MODES for head in HEADS),
    *(Way(f"{mode} everywhere", (), f"everywhere, {_rule(mode, 8)}") for mode in MODES),
]
SOURCES = [Way(f"{DEFAULT} of {source}", QUICKLY, source=source) for source in ("fp8", "newer")]
OPTIONS = {
    "quantize": RECIPES,
    "recipe": RULES,
    "method": RECIPES,
    "group_size": [Way(f"{DEFAULT} by {size}", (*QUICKLY, "--group-size", str(size))) for size in GROUP_SIZES],
    "dtype": [
        *(Way(f"{DEFAULT} as {dtype}", (*QUICKLY, "--dtype", dtype)) for dtype in DTYPES),
        *(Way(f"{mode} as {dtype}", ("--dtype", dtype), _rule(mode)) for mode in FIXED_MODES for dtype in DTYPES),
    ],
    "keep": [Way("a part kept", (*QUICKLY, "--keep", "*.layers.0.*", "--keep", "vision_tower.*"))],
    "calibration_tokens": SOURCES,
    "threads": [Way("one thread", (*QUICKLY, "--threads", "1"))],
}

# What an option does not change in the folder, with what tries it instead.
ELSEWHERE = {
    "model": "every way",
    "output": "every way",
    "smoke_test": "tests/validate/smoke",
    "revision": "tests/hub",
    "low_disk": "tests/conversion/test_low_disk.py",
    "dry_run": "tests/conversion/test_plan_text.py",
    "as_json": "tests/conversion/test_plan_text.py",
    "quiet": "tests/test_commands.py",
    "leave_out": "tests/conversion/source/test_traces.py",
    **dict.fromkeys(("upload_repo", "private", "license_id", "fidelity_pages", "allow_failing"), "tests/publish"),
    **dict.fromkeys(("base_model", "collection"), "tests/publish"),
    **dict.fromkeys(("target_size", "fit_mac", "max_kl"), "tests/conversion/calibrated/allocation/test_recipe.py"),
    **dict.fromkeys(("calibrate_on", "calibration_answers"), "tests/calibration"),
    "calibration_gradients": "tests/conversion/calibrated/test_calibrate.py",
    "calibration_propagation": "tests/conversion/calibrated/test_propagate.py",
    "sensitivities": "tests/calibration/test_sensitivities.py",
}

WAYS = {way.name: way for way in (*SOURCES, *(way for ways in OPTIONS.values() for way in ways))}
QUICK = {f"{DEFAULT}, fit"}


def recipe_file(folder, rule):
    """Write a recipe that applies *rule* to the language model, or to all that it can be applied to."""
    if rule.startswith("everywhere, "):
        lines = ["vision_mlp_multiple: 64", f"rules: [{{match: '*', {rule.removeprefix('everywhere, ')}}}]"]
    else:
        kept = "{match: 'vision_tower.*', keep: it is small}"
        lines = [f"rules: [{kept}, {{match: 'language_model.*', {rule}}}]"]
    path = folder / "own.yaml"
    path.write_text("\n".join(["name: own", "summary: One of a test's.", *lines]))
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a function: kind -> a checkpoint that can read, in that form; each is made once."""

    @functools.cache
    def make(kind):
        if kind in ("plain", "untied"):
            return CHECKPOINT
        folder = tmp_path_factory.mktemp("sources") / kind
        if kind == "newer":
            return demo_checkpoint(folder, new_keys, nested_config)
        change = {"tied": {"tie_word_embeddings": True}, "fp8": {"quantization_config": FP8_CONFIG}}[kind]
        demo_checkpoint(folder, reconfigure=lambda config: config | change)
        tensors = read_tensors(folder)
        if kind == "tied":
            del tensors["lm_head.weight"]
        write_tensors(folder / "model.safetensors", fp8_tensors(tensors) if kind == "fp8" else tensors)
        return folder

    return make


def converted_by(way, source, folder):
    options = [*way.options, *(("--recipe", str(recipe_file(folder, way.rule))) if way.rule else ())]
    args = [str(source), "--output", str(folder / "model"), *options, "--no-smoke-test", "--quiet"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    return folder / "model"


def served_text(engine, content):
    with running(engine.ask) as server:
        answer = server.post(CHAT, json=chat(data_uri(content), "Read.", max_tokens=TOKENS, temperature=0))
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def is_float(array):
    return mx.issubdtype(array.dtype, mx.floating)


def stock_text(folder, image, *, widened=False):
    """Return what stock mlx-vlm writes; *widened*, it computes in float32, as this engine does without a GPU."""
    model, processor = mlx_vlm.load(str(folder))
    if widened:
        model.update(tree_map(lambda array: array.astype(mx.float32) if is_float(array) else array, model.parameters()))
    return mlx_vlm.generate(
        model, processor, chat_prompt("Read."), image=[image], max_tokens=TOKENS, temperature=0.0, verbose=False
    ).text


def go(way, source, folder, hub):
    model = converted_by(way, source, folder)
    report = check_weights(model, source)
    assert [check for check in report.checks if check.holds is not True] == []
    content = picture((84, 56))
    image = Image.new("RGB", (84, 56), "white")
    with Engine(ModelFolder(model), DEVICE) as engine:
        ours = asyncio.run(engine.ask(PageRequest(PageImage(image), "Read.", max_tokens=TOKENS))).text
        assert served_text(engine, content) == ours
    # Stock computes in the folder's 16 bits, in which a choice between two tokens that are nearly as good may fall
    # otherwise (3 bits by 128, after "primary_language:"). The same weights in float32 give the same text then.
    assert stock_text(model, image) == ours or stock_text(model, image, widened=True) == ours
    assert reproduce(model, str(source)).holds
    published = model_copy(model, folder / "published")
    push(hub, published)
    assert {*(path.name for path in published.iterdir()), "README.md"} <= set(files_of(hub, REPO))
    assert f"Recipe {'own' if way.rule else way.options[1]}" in files_of(hub, REPO)["README.md"].content.decode()
    return ours


@pytest.mark.parametrize(
    "way", [pytest.param(way, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, way in WAYS.items()]
)
def test_it_goes_the_whole_way(way, sources, writable_hub, tmp_path):
    assert go(way, sources(way.source), tmp_path, writable_hub)


def table_row(document, key):
    """Return the second cell of the row of a table that begins with *key*."""
    (row,) = re.findall(rf"^\| `{key}` \| (.*) \|$", (ROOT / document).read_text(), re.MULTILINE)
    return row


def test_the_docs_offer_what_goes_the_whole_way_and_nothing_else():
    modes = set(re.findall(r"`(\w+)`", table_row("docs/recipes.md", "mode"))) - {"bits", "group_size"}
    assert modes == set(MODES)
    bits = re.findall(r"\d+", table_row("docs/recipes.md", "bits"))
    assert bits == list(map(str, BITS))
    sizes = re.findall(r"\d+", table_row("docs/recipes.md", "group_size"))
    assert set(sizes) == set(map(str, GROUP_SIZES))
    assert set(re.findall(r"`(\w+)`", table_row("docs/recipes.md", "head"))) == set(HEADS)
    (dtypes,) = re.findall(r"^dtype: (\w+)\s+# or ([\w, ]+?);", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE)
    assert sorted(", ".join(dtypes).split(", ")) == sorted(DTYPES)


def test_the_docs_name_every_recipe_and_method():
    text = (ROOT / "docs/quantization.md").read_text()
    table = re.findall(r"^\| \**`([\w-]+)`\** \|", text, re.MULTILINE)
    beside = re.findall(r"`([\w-]+)`", text.partition(" have the size of `none`")[0].rpartition("\n")[2])
    assert {*table, *beside} == set(recipe_names())
    assert set(re.findall(r"^`--method (\w+)`", text, re.MULTILINE)) == set(METHODS)


def test_every_option_of_the_command_is_tried_on_the_whole_way_or_elsewhere():
    parameters = set(inspect.signature(inspect.unwrap(convert_to_mlx)).parameters)
    assert parameters == {*OPTIONS, *ELSEWHERE}
    assert not set(OPTIONS) & set(ELSEWHERE)
    assert all((ROOT / place).exists() for place in ELSEWHERE.values() if place != "every way")
