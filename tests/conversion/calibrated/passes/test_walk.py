"""The walk through a source: the same states as mlx-vlm's, H as plain numpy adds it up, resumed, a block at a time."""

from dataclasses import replace

import mlx.core as mx
import mlx_vlm
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.hidden_states import HiddenStates
from olmocr.conversion.calibrated.passes.language import head_input, language_shape, logits
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks
from olmocr.conversion.calibrated.passes.walk import (
    WalkOptions,
    block_names,
    can_resume,
    in_order,
    states_bytes,
    walk,
)
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.errors import OutputError, PlanError
from olmocr.model_folder import ModelFolder
from tests.conftest import CHECKPOINT, DEVICE
from tests.conversion.calibrated.pages import random_pages

pytestmark = pytest.mark.skipif(DEVICE.kind != "cpu", reason="states in 16 bits are near each other, not equal")


@pytest.fixture(scope="module")
def source():
    return read_checkpoint(ModelFolder(CHECKPOINT))


@pytest.fixture(scope="module")
def pages(source):
    return in_order(random_pages(source.config))


def walked(source, pages, folder, **arguments):
    """Walk, and return what was seen of each block."""
    seen = []
    walk(source, pages, seen.append, folder, **arguments)
    return seen


@pytest.fixture(scope="module")
def whole(source, pages, tmp_path_factory):
    """A walk whose states are all kept: (folder, what was seen)."""
    folder = tmp_path_factory.mktemp("walk")
    return folder, walked(source, pages, folder, options=WalkOptions(keep_states_from=0))


@pytest.fixture(scope="module")
def stock(converted):
    """The source as mlx-vlm loads it, in float32."""
    model, _ = mlx_vlm.load(str(converted("none")), lazy=True)
    model.set_dtype(mx.float32)
    return model


def states_of(model, page):
    """Return mlx-vlm's states before each block of the language model and after the last, and its logits."""
    pixels, ids = mx.array(page.pixel_values), mx.array(page.token_ids)[None]
    features = model.vision_tower(pixels, mx.array(page.grid_thw), output_hidden_states=False)
    language = model.language_model
    hidden = model.merge_input_ids_with_image_features(
        model.config.image_token_id,
        model.config.video_token_id,
        features,
        language.model.embed_tokens(ids),
        ids,
    )
    states = [hidden]
    for layer in language.model.layers:
        states.append(layer(states[-1], "causal", None, mx.array(page.position_ids)[:, None]))
    return [np.array(each[0]) for each in states], np.array(language.lm_head(language.model.norm(states[-1]))[0])


def stored_states(folder, source, pages, number, page):
    (path,) = folder.glob(f"hidden-{number:04}-*.bin")
    states = HiddenStates(folder, path.stem.rpartition("-")[2], mx.float32)
    return np.array(states.read(number, [len(each.token_ids) for each in pages], page))


def test_hidden_states_and_logits_are_those_of_mlx_vlm(source, pages, whole, stock):
    folder, _ = whole
    vision, shape = source.config["vision_config"]["depth"], language_shape(source.config)
    blocks = SourceBlocks(source, mx.float32)
    norm, head = (blocks.weights(f"language_model.{each}")["weight"] for each in ("model.norm", "lm_head"))
    farthest, farthest_logit = 0.0, 0.0
    for place, page in enumerate(pages):
        expected, expected_logits = states_of(stock, page)
        for number, theirs in enumerate(expected):
            ours = stored_states(folder, source, pages, vision + number, place)
            farthest = max(farthest, np.abs(ours - theirs).max() / np.abs(theirs).max())
        ours = np.array(logits(head, head_input(norm, mx.array(ours), shape)))
        farthest_logit = max(farthest_logit, np.abs(ours - expected_logits).max())
    assert farthest < 2e-5
    assert farthest_logit < 2e-3


def test_the_blocks_are_walked_in_order_and_each_matrix_has_the_h_of_its_input(source, whole):
    _, seen = whole
    assert tuple(each.name for each in seen) == block_names(source)
    first, block, head = seen[0], seen[source.config["vision_config"]["depth"]], seen[-1]
    assert {name.removeprefix("vision_tower.blocks.0.") for name in first.matrices} == {
        *("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    }
    assert len(block.matrices) == 7
    assert list(head.matrices) == ["language_model.lm_head"]
    inputs = {name.rpartition(".")[2]: each.input for name, each in block.matrices.items()}
    assert inputs["q_proj"] is inputs["k_proj"] is inputs["v_proj"]
    assert inputs["gate_proj"] is inputs["up_proj"]
    for each in (*first.matrices.values(), *block.matrices.values(), *head.matrices.values()):
        (hessian,) = each.input.hessians
        assert hessian.shape == (each.matrix.shape[1],) * 2
        assert (hessian == hessian.T).all()


def plain_inputs(source, hidden, page):
    """Return what a language block's matrices are given, with numpy alone: (attention, output, mlp, down)."""
    config, blocks = source.config, SourceBlocks(source, mx.float32)
    weights = {
        name: np.array(each, np.float64) for name, each in blocks.weights("language_model.model.layers.2").items()
    }
    heads, groups, width = config["num_attention_heads"], config["num_key_value_heads"], config["hidden_size"]
    size = width // heads

    def normed(values, name):
        return (
            values / np.sqrt((values**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weights[f"{name}.weight"]
        )

    def linear(values, name):
        return values @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    axis = np.repeat([0, 1, 2], config["rope_scaling"]["mrope_section"])
    angles = page.position_ids[axis].T / config["rope_theta"] ** (np.arange(size // 2) / (size // 2))
    turn = np.exp(1j * angles)[:, None]

    def rotated(values):
        pairs = (values[..., : size // 2] + 1j * values[..., size // 2 :]) * turn
        return np.concatenate([pairs.real, pairs.imag], -1)

    attention = normed(hidden, "input_layernorm")
    queries = rotated(linear(attention, "self_attn.q_proj").reshape(-1, heads, size))
    keys = rotated(linear(attention, "self_attn.k_proj").reshape(-1, groups, size)).repeat(heads // groups, 1)
    values = linear(attention, "self_attn.v_proj").reshape(-1, groups, size).repeat(heads // groups, 1)
    scores = np.einsum("qhd,khd->hqk", queries, keys) / size**0.5
    scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    output = np.einsum("hqk,khd->qhd", shares, values).reshape(-1, width)
    mlp = normed(hidden + linear(output, "self_attn.o_proj"), "post_attention_layernorm")
    gate = linear(mlp, "mlp.gate_proj")
    return attention, output, mlp, gate / (1 + np.exp(-gate)) * linear(mlp, "mlp.up_proj")


def test_h_is_what_plain_numpy_adds_up(source, pages, whole):
    folder, seen = whole
    number = source.config["vision_config"]["depth"] + 2
    names = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
    expected = [0, 0, 0, 0]
    for place, page in enumerate(pages):
        weights = np.where(page.token_ids == source.config["image_token_id"], 0.1, 0.0)
        weights[page.answer_start - 1 : -1] = 1
        inputs = plain_inputs(source, stored_states(folder, source, pages, number, place).astype(np.float64), page)
        expected = [total + (each.T * weights) @ each for total, each in zip(expected, inputs, strict=True)]
    for name, hessian in zip(names, expected, strict=True):
        (ours,) = seen[number].matrices[f"language_model.model.layers.2.{name}"].input.hessians
        assert np.abs(ours - hessian).max() < 1e-5 * np.abs(hessian).max()


def test_a_walk_that_was_ended_resumes_and_sees_the_same(source, pages, whole, tmp_path):
    _, expected = whole
    done = []

    def end_at_nine(block):
        if block.number == 9:
            raise RuntimeError
        done.append(block.number)

    with pytest.raises(RuntimeError):
        walk(source, pages, end_at_nine, tmp_path)
    left = list(tmp_path.iterdir())
    assert [path.name.split("-")[1] for path in sorted(left)] == ["0008", "0009", "0010"]
    assert sum(path.stat().st_size for path in left) <= states_bytes(source, pages)
    assert can_resume(source, pages, tmp_path, 9)
    rest = walked(source, list(reversed(pages)), tmp_path, first_block=9)
    assert [*done, *(each.number for each in rest)] == list(range(len(expected)))
    for ours, theirs in zip(rest, expected[9:], strict=True):
        for name, matrix in ours.matrices.items():
            np.testing.assert_array_equal(matrix.input.hessians[0], theirs.matrices[name].input.hessians[0])


def test_states_of_other_pages_are_not_taken(source, pages, tmp_path, whole):
    folder, _ = whole
    assert not can_resume(source, pages[1:], folder, 9)
    assert not can_resume(source, pages, folder, len(block_names(source)))
    with pytest.raises(OutputError, match="start over"):
        walk(source, pages[1:], lambda block: None, folder, first_block=9)


def test_no_more_than_one_block_is_read_at_a_time(source, pages, whole, tmp_path):
    pages, read = pages[:2], []

    def count(block):
        blocks = next(iter(block.matrices.values())).matrix.blocks
        read.append(blocks.bytes_read)

    walk(source, pages, count, tmp_path)
    sizes = {}
    for name, info in source.tensors.items():
        block = next((each for each in block_names(source) if name.startswith(each)), None)
        sizes[block] = sizes.get(block, 0) + info.nbytes
    beside = source.tensors["vision_tower.patch_embed.proj.weight"].nbytes
    expected = np.cumsum([sizes[name] for name in block_names(source)[:-1]]) + beside
    vision = source.config["vision_config"]["depth"]
    assert read[: vision - 1] == expected[: vision - 1].tolist()
    assert [each - read[vision - 1] for each in read[vision:-1]] == (expected[vision:] - expected[vision - 1]).tolist()
    # The rows of the embeddings that pages' tokens have, and of the head nothing but the norm before it.
    width = source.config["hidden_size"]
    rows = sum(len(set(page.token_ids.tolist())) for page in pages)
    assert read[-1] - read[-2] == 2 * width
    assert read[vision - 1] - expected[vision - 1] < 2 * width * rows + 4096 * rows + sizes_of_merger(source)


def sizes_of_merger(source):
    return sum(info.nbytes for name, info in source.tensors.items() if name.startswith("vision_tower.merger."))


def test_matrices_are_the_sources_to_the_bit(source, whole):
    _, seen = whole
    info = source.tensors["language_model.model.layers.0.mlp.up_proj.weight"]
    matrix = seen[source.config["vision_config"]["depth"]].matrices["language_model.model.layers.0.mlp.up_proj"].matrix
    content = (CHECKPOINT / info.shard).read_bytes()[info.offset : info.offset + info.nbytes]
    bits = np.frombuffer(content, np.uint16).astype(np.uint32) << 16
    np.testing.assert_array_equal(matrix.rows(), bits.view(np.float32).reshape(info.shape))
    np.testing.assert_array_equal(matrix.rows(3, 5), matrix.rows()[3:5])


def test_only_what_is_needed_is_added_up_and_a_quarter_is_held_out(source, pages, whole, tmp_path):
    _, seen = whole
    name = "language_model.model.layers.5.mlp.down_proj"
    options = WalkOptions(needed={name}, down_slices=2, held_out_seed=1)
    ours = walked(source, pages, tmp_path, options=options)
    assert [list(each.matrices) for each in ours if each.matrices] == [[name]]
    (found,) = (each.matrices[name].input for each in ours if each.matrices)
    (theirs,) = (each.matrices[name].input.hessians for each in seen if name in each.matrices)
    half = theirs[0].shape[0] // 2
    for place, own in enumerate([slice(0, half), slice(half, None)]):
        together = found.hessians[place] + found.held_out[place]
        np.testing.assert_allclose(together, theirs[0][own, own], rtol=0, atol=1e-5 * np.abs(theirs[0]).max())
        assert found.held_out[place].trace() > 0


def test_weights_of_a_callers_own_count_in_blocks_of_the_language_model(source, pages, tmp_path):
    names = {f"language_model.model.layers.0.self_attn.{each}_proj" for each in "qk"} | {"language_model.lm_head"}
    asked = []

    def weigh(page, modules):
        asked.append(sorted(modules))
        return np.full(len(page.token_ids), 4.0, np.float32)

    once, again = (
        [each for each in walked(source, pages[:1], tmp_path / name, options=options) if each.matrices]
        for name, options in (
            ("fours", WalkOptions(needed=names, weigh=weigh)),
            ("ones", WalkOptions(needed=names, weigh=lambda page, modules: weigh(page, modules) / 4)),
        )
    )
    fours, ones = (blocks[0].matrices["language_model.model.layers.0.self_attn.q_proj"] for blocks in (once, again))
    np.testing.assert_allclose(fours.input.hessians[0], 4 * ones.input.hessians[0], rtol=1e-5, atol=1e-9)
    assert asked == [sorted(names - {"language_model.lm_head"})] * 2
    assert fours.input is once[0].matrices["language_model.model.layers.0.self_attn.k_proj"].input


def test_a_family_that_cannot_be_walked_is_refused_before_anything_is_read(source, pages, tmp_path):
    other = replace(source, config={**source.config, "model_type": "qwen3_vl"})
    with pytest.raises(PlanError, match="method='fit'"):
        walk(other, pages, lambda block: None, tmp_path)
