""""""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.recipe import QuantParams, changed, decide, find_recipe, parse_recipe, read_recipe, recipe_names
from olmocr.errors import PlanError, UsageError
from tests.conversion.patterned import BLOCKS


def recipe(rules, head=""):
    return parse_recipe(f"name: mine\nsummary: Tries things.\n{head}\nrules:\n{rules}".encode(), "mine.yaml")


def the_error(rules, head=""):
    with pytest.raises(UsageError) as caught:
        recipe(rules, head)
    text = str(caught.value)
    assert text.startswith("mine.yaml is not a recipe: ")
    assert text.endswith("; docs/recipes.md describes the format")
    return text.removeprefix("mine.yaml is not a recipe: ").removesuffix("; docs/recipes.md describes the format")


def test_every_packaged_recipe_can_be_read_under_its_own_name():
    assert set(recipe_names()) == {
        *("none", "bf16", "fp16", "3bit", "4bit", "5bit", "6bit", "8bit"),
        *("mixed", "mixed-tiny", "mixed-small", "mixed-large"),
    }
    for name in recipe_names():
        assert find_recipe(name).name == name
        assert find_recipe(name).summary.endswith(".")


def test_recipes_are_found_under_other_names_too():
    for other in ("4", "q4", "Q4", "4-bit", "4_bit", "int4", "4BIT"):
        assert find_recipe(other) == find_recipe("4bit")
    assert find_recipe("16") == find_recipe("bfloat16") == find_recipe("bf16")
    assert find_recipe("float16") == find_recipe("fp16")


@pytest.mark.parametrize("name", ["7bit", "2", "", "mixed_", "../none", "none.yaml"])
def test_an_unknown_recipe_is_refused_with_the_known_ones(name):
    with pytest.raises(UsageError, match=r"there is no recipe '.*'; choose one of 3bit, 4bit, .*, none, or give"):
        find_recipe(name)


def test_a_recipe_is_read_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nsummary: Tries\n  things.\ndtype: float16\nvision_mlp_multiple: 64\nrules:\n"
        "- {match: language_model.lm_head, bits: 6, head: untied}\n"
        "- {match: ['*.v_proj', '*.k_proj'], bits: 8, group_size: 32}\n"
        "- {match: '*.down_proj', mode: mxfp8}\n"
        "- {match: '*', keep: the rest}\n"
    )
    read = read_recipe(path)
    assert (read.name, read.summary, read.dtype, read.vision_mlp_multiple) == ("mine", "Tries things.", "float16", 64)
    assert [(rule.text, rule.params, rule.kept_because, rule.head) for rule in read.rules] == [
        ("language_model.lm_head", QuantParams(6, 64), None, "untied"),
        ("*.v_proj, *.k_proj", QuantParams(8, 32), None, None),
        ("*.down_proj", QuantParams(8, 32, "mxfp8"), None, None),
        ("*", None, "the rest", None),
    ]


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)])
def test_a_mode_of_one_size_has_that_size(mode, bits, group_size):
    expected = QuantParams(bits, group_size, mode)
    assert recipe(f"- {{match: '*', mode: {mode}}}").rules[0].params == expected
    assert recipe(f"- {{match: '*', mode: {mode}, bits: {bits}}}").rules[0].params == expected


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_a_dtype_may_be_left_open(text):
    assert recipe("- {match: '*', bits: 4}", f"dtype: {text}").dtype is None


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ("- {match: '*', bits: 7}", "rule 1: bits is '7', not one of 3, 4, 5, 6, 8"),
        ("- {match: '*', bits: 4.0}", "rule 1: bits is '4.0', not one of 3, 4, 5, 6, 8"),
        ("- {match: '*', bits: [4]}", "rule 1: bits is ['4'], not one of 3, 4, 5, 6, 8"),
        ("- {match: '*', bits: 4, group_size: 48}", "rule 1: group_size is '48', not one of 32, 64, 128"),
        ("- {match: '*', bits: 4, mode: q4}", "rule 1: mode is 'q4', not one of affine, mxfp4, mxfp8, nvfp4"),
        ("- {match: '*', bits: 8, mode: mxfp4}", "rule 1: bits is '8', not 4, the only one that mxfp4 has"),
        (
            "- {match: '*', mode: nvfp4, group_size: 64}",
            "rule 1: group_size is '64', not 16, the only one that nvfp4 has",
        ),
        ("- {match: '*', keep: it, bits: 4}", "rule 1: it has both keep and bits; leave one out"),
        ("- {match: '*'}", "rule 1: it has neither keep nor bits"),
        ("- {match: '*', group_size: 64}", "rule 1: it has neither keep nor bits"),
        ("- {match: '*', keep: ''}", "rule 1: keep is '', not a text"),
        ("- {match: '*', keep: [no]}", "rule 1: keep is ['no'], not a text"),
        ("- {keep: it}", "rule 1: match is missing"),
        ("- {match: [], keep: it}", "rule 1: match is [], not a pattern or a list of them"),
        ("- {match: ['*', [a]], keep: it}", "rule 1: match is ['*', ['a']], not a pattern or a list of them"),
        ("- {match: '*', bits: 4, head: no}", "rule 1: head is 'no', not one of tied, untied"),
        ("- {match: '*', bits: 4, size: 3}", "rule 1: 'size' is not one of match, keep, bits, group_size, mode, head"),
        (
            "- {match: '*', bits: 4}\n- all",
            "rule 2: expected match, keep, bits, group_size, mode, head, not 'all'",
        ),
        ("- {match: '*', match: a, bits: 4}", "it has 'match' twice"),
        ("  []", "it does not have a list of rules"),
        ("  all", "it does not have a list of rules"),
        ("- {match: *a, bits: 4}", "it has an alias (*); a pattern that begins with * needs quotes"),
        ("- {match: a", "it is not YAML (expected ',' or '}', but got '<stream end>' in line 5)"),
        ("- {match: {a: b}, bits: 4}", "rule 1: match is {'a': 'b'}, not a pattern or a list of them"),
        ("- {[a]: b}", "it is not YAML (found unhashable key in line 5)"),
    ],
)
def test_a_bad_rule_is_refused_in_one_sentence(rules, error):
    assert the_error(rules) == error


def test_a_bad_pattern_is_refused_with_its_rule():
    assert the_error("- {match: 'a?', bits: 4}").startswith("rule 1: 'a?' is not a pattern from '?' on")


@pytest.mark.parametrize(
    ("head", "error"),
    [
        ("dtype: int8", "dtype is 'int8', not one of bfloat16, float16, float32"),
        ("dtype: [float16]", "dtype is ['float16'], not one of bfloat16, float16, float32"),
        ("vision_mlp_multiple: 0", "vision_mlp_multiple is '0', not a number from 1 to 1024"),
        ("vision_mlp_multiple: no", "vision_mlp_multiple is 'no', not a number from 1 to 1024"),
        ("vision_mlp_multiple: 99999999", "vision_mlp_multiple is '99999999', not a number from 1 to 1024"),
        ("author: me", "'author' is not one of name, summary, rules, dtype, vision_mlp_multiple, method"),
        ("name: again", "it has 'name' twice"),
    ],
)
def test_a_bad_setting_is_refused_in_one_sentence(head, error):
    assert the_error("- {match: '*', bits: 4}", head) == error


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "expected name, summary, rules, dtype, vision_mlp_multiple, method, not nothing"),
        (b"- a", "expected name, summary, rules, dtype, vision_mlp_multiple, method, not ['a']"),
        (b"summary: A.\nrules: [{match: a, bits: 4}]", "name is missing"),
        (b"name: a\nrules: [{match: a, bits: 4}]", "summary is missing"),
        (b"name: a\nsummary: A.", "it does not have a list of rules"),
        (b"name: a/b\nrules: 1", "name is 'a/b' and becomes part of a folder's name: use letters, digits, . _ and -"),
        (b"name: [a]\nrules: 1", "name is ['a'], not a text"),
        (b"\xff\xfe\xff", "it is not YAML (it holds characters that are not text)"),
        (b"\x00", "it is not YAML (it holds characters that are not text)"),
        (b"a: &x 1\nb: *x", "it has an alias (*); a pattern that begins with * needs quotes"),
        (b"[" * 5000, "it is nested too deeply"),
    ],
)
def test_what_is_not_a_recipe_is_refused_in_one_sentence(content, error):
    with pytest.raises(UsageError) as caught:
        parse_recipe(content, "mine.yaml")
    assert str(caught.value) == f"mine.yaml is not a recipe: {error}; docs/recipes.md describes the format"


def test_a_file_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * 100_001)
    with pytest.raises(UsageError, match=r"large\.yaml has more than 100,000 bytes, so it is not a recipe"):
        read_recipe(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"the recipe .*/none\.yaml cannot be read: No such file"):
        read_recipe(tmp_path / "none.yaml")


@given(content=st.binary(max_size=60) | st.text("namesurybit:s4*&!-[]{}'\n ,<|>#~", max_size=80).map(str.encode))
def test_any_bytes_are_a_recipe_or_a_usage_error(content):
    with pytest.raises(UsageError):
        parse_recipe(content, "mine.yaml")


def test_tags_are_not_obeyed():
    assert recipe("- {match: '*', bits: !!python/object/apply:os.system 4}").rules[0].params == QuantParams(4)


def test_a_group_size_replaces_that_of_every_affine_rule():
    mine = recipe(
        "- {match: a, bits: 4}\n- {match: b, mode: mxfp4}\n- {match: '*', keep: it}", "vision_mlp_multiple: 64"
    )
    other = changed(mine, group_size=128)
    assert [rule.params for rule in other.rules] == [QuantParams(4, 128), QuantParams(4, 32, "mxfp4"), None]
    assert other.vision_mlp_multiple == 128
    assert (other.name, other.changes) == ("mine", ("group_size 128",))


def test_what_is_kept_comes_before_all_rules():
    other = changed(find_recipe("4bit"), keep=("*.v_proj", "*.lm_head"))
    assert [rule.kept_because for rule in other.rules[:2]] == ["kept by --keep *.v_proj", "kept by --keep *.lm_head"]
    assert other.rules[2:] == find_recipe("4bit").rules
    assert other.changes == ("keep *.v_proj", "keep *.lm_head")


@pytest.mark.parametrize(("given", "dtype"), [("fp16", "float16"), ("BF16", "bfloat16"), ("float32", "float32")])
def test_a_dtype_replaces_that_of_the_recipe(given, dtype):
    other = changed(find_recipe("bf16"), dtype=given)
    assert (other.dtype, other.changes) == (dtype, (f"dtype {dtype}",))


def test_no_change_leaves_the_recipe_as_it_is():
    assert changed(find_recipe("mixed")) == find_recipe("mixed")


def test_changes_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="`group_size` is 48, not one of 32, 64, 128"):
        changed(find_recipe("4bit"), group_size=48)
    with pytest.raises(UsageError, match="the recipe none does not have groups that `group_size` could change"):
        changed(find_recipe("none"), group_size=32)
    with pytest.raises(UsageError, match="`dtype` is 'int8', not one of bfloat16, float16, float32"):
        changed(find_recipe("none"), dtype="int8")
    with pytest.raises(UsageError, match=r"'a\?' is not a pattern"):
        changed(find_recipe("none"), keep=("a?",))


MODULES = [f"model.layers.{number}.{part}" for number in range(12) for part in ("q", "v")]


def test_the_first_rule_that_matches_decides():
    rules = decide(
        recipe("- {match: '*.v', bits: 8}\n- {match: '*.layers.[-1:].*', bits: 6}\n- {match: '*', bits: 4}"),
        MODULES,
        BLOCKS,
        "untied",
    )
    assert [rules[f"model.layers.{name}"].params.bits for name in ("0.q", "0.v", "11.q", "11.v")] == [4, 8, 6, 8]


def test_all_rules_that_match_nothing_are_named_at_once():
    mine = recipe("- {match: '*.k', bits: 8}\n- {match: '*', bits: 4}\n- {match: [a, b], keep: it}")
    with pytest.raises(
        PlanError, match=r"^2 rules of the recipe mine match no matrix of this model:\n  \*\.k\n  a, b\n"
    ):
        decide(mine, MODULES, BLOCKS, "untied")


def test_a_rule_whose_matches_an_earlier_one_took_is_not_a_mistake():
    mine = recipe("- {match: '*', bits: 4}\n- {match: '*.v', bits: 8}")
    assert {rule.params.bits for rule in decide(mine, MODULES, BLOCKS, "untied").values()} == {4}


def test_a_rule_for_another_kind_of_head_is_left_out():
    mine = recipe(
        "- {match: gone, bits: 8, head: untied}\n- {match: '*.v', bits: 6, head: tied}\n- {match: '*', bits: 4}"
    )
    assert {rule.params.bits for rule in decide(mine, MODULES, BLOCKS, "tied").values()} == {4, 6}
    with pytest.raises(PlanError, match="1 rule of the recipe mine matches no matrix"):
        decide(mine, MODULES, BLOCKS, "untied")


def test_all_matrices_that_no_rule_decides_are_named_at_once():
    with pytest.raises(
        PlanError, match=r"decides about 12 matrices:\n  model\.layers\.\*\.q, 12 of them\nend the rules"
    ):
        decide(recipe("- {match: '*.v', bits: 8}"), MODULES, BLOCKS, "untied")
