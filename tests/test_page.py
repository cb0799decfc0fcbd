import dataclasses
import hashlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from olmocr.page import (
    FIELDS,
    FRONT_MATTER_REGEX,
    LONGEST_FRONT_MATTER,
    PAGE_PROMPT,
    ROTATIONS,
    ModelResponse,
    PageResponse,
    PageResponseError,
    chat_prompt,
    make_front_matter,
    parse_page_response,
    stated_turn,
    text_below,
    text_so_far,
)
from tests.conftest import PAGES

GOOD = PageResponse("en", True, 0, False, False, "Hello")


def answer(language="en", valid="True", rotation="0", table="False", diagram="False", body="\nHello"):
    return (
        f"---\nprimary_language: {language}\nis_rotation_valid: {valid}\nrotation_correction: {rotation}\n"
        f"is_table: {table}\nis_diagram: {diagram}\n---{body}"
    )


def breaks(raw, mode="lenient"):
    with pytest.raises(PageResponseError) as error:
        parse_page_response(raw, mode)
    return [(each.line, each.rule) for each in error.value.breaks]


def test_the_prompt_is_the_one_olmocr_2_was_trained_on():
    expected = "c12f21aca8c6c5599cea6176edd974b7ea6a05cf451497abd6370dd449db3979"
    assert hashlib.sha256(PAGE_PROMPT.encode()).hexdigest() == expected


def test_the_model_is_asked_text_first_and_image_second():
    assert chat_prompt() == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        + PAGE_PROMPT
        + "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_guided_answer_matches_upstreams_expression_and_that_of_python_none():
    assert FRONT_MATTER_REGEX == (
        r"---\nprimary_language: (?:[a-z]{2}|null|None)\nis_rotation_valid: (?:True|False|true|false)\n"
        r"rotation_correction: (?:0|90|180|270)\nis_table: (?:True|False|true|false)\n"
        r"is_diagram: (?:True|False|true|false)\n(?:---|---\n[\s\S]+)"
    )


def test_answers_are_alike_however_many_passes_they_took():
    assert ModelResponse("a", "stop", 1, 2) == ModelResponse("a", "stop", 1, 2, passes=9)
    assert ModelResponse("a", "stop", 1, 2).passes == 0


def test_the_fields_are_those_of_a_page_in_their_order():
    assert [*FIELDS, "natural_text"] == [each.name for each in dataclasses.fields(PageResponse)]


def test_a_front_matter_that_is_made_is_read_again():
    page = PageResponse("de", False, 270, True, False, None)
    assert make_front_matter(vars(page)) == answer("de", "False", "270", "True", body="\n")
    assert parse_page_response(make_front_matter(vars(page)), "strict") == page


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_an_answer_as_in_training_is_read(mode):
    assert parse_page_response(answer(), mode) == GOOD


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_the_true_answer_of_every_demo_page_is_read(mode, truth):
    for (pdf, number), entry in truth.items():
        stem = pdf.removesuffix(".pdf")
        name = f"{stem}.p{number}.md" if stem == "report_22" else f"{stem}.md"
        page = parse_page_response((PAGES / name).read_text(), mode)
        assert (page.natural_text or "") == (entry["natural_text"] or "")


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("nothing", ["None", "null"])
def test_a_language_of_python_none_is_none_and_not_a_word(nothing, mode):
    assert parse_page_response(answer(nothing), mode).primary_language is None


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_norwegian_is_a_language_and_not_false(mode):
    assert parse_page_response(answer("no"), mode).primary_language == "no"


@pytest.mark.parametrize("word", ["yes", "true", "12", "2024-01-01", "[en]", "{en: 1}"])
def test_a_language_that_is_not_a_word_is_refused(word):
    assert breaks(answer(word)) == [(2, "value")]


@pytest.mark.parametrize("word", ["maybe", "1", "null", "''", "[True]", "!!bool maybe", "!!bool ''"])
def test_a_boolean_that_is_neither_is_refused_and_not_taken_for_false(word):
    assert breaks(answer(table=word)) == [(5, "value")]


@pytest.mark.parametrize(
    "word", ["False", "45", "-90", "360", "90.0", "null", "ninety", "", "!!int x", "!!int ''", "!!int '-'"]
)
def test_a_rotation_that_is_not_a_quarter_turn_is_refused(word):
    assert breaks(answer(rotation=word)) == [(4, "value")]


@pytest.mark.parametrize(
    ("wrapped", "rule"),
    [
        ("\ufeff" + answer(), "byte-order-mark"),
        ("\n \n" + answer(), "leading-blank"),
        (answer().replace("\n", "\r\n"), "line-ends"),
        (f"```yaml\n{answer()}\n```", "code-fence"),
        (f"```\n{answer(body=chr(10) + '```' + chr(10) + 'Hello')}", "code-fence"),
        (f"```markdown\n{answer()}", "code-fence"),
    ],
)
def test_a_good_page_in_a_strange_wrapping_is_read_leniently_and_named_strictly(wrapped, rule):
    assert parse_page_response(wrapped) == GOOD
    assert rule in [name for _, name in breaks(wrapped, "strict")]


def test_a_fence_and_blank_lines_do_not_shift_the_line_that_a_rule_is_broken_in():
    assert breaks("\n\n```yaml\n\n" + answer(table="maybe")) == [(9, "value")]


def test_a_code_block_in_the_body_keeps_its_fences_when_the_whole_answer_is_fenced():
    body = "\nRun:\n```\nmake\n```"
    assert parse_page_response(f"```markdown\n{answer(body=body)}\n```").natural_text == body.strip()


def test_a_body_in_crlf_under_a_front_matter_in_lf_is_kept_as_it_is():
    assert parse_page_response(answer(body="\na\r\nb")).natural_text == "a\r\nb"


def test_the_fields_may_come_in_another_order_only_leniently():
    lines = answer().split("\n")
    shuffled = "\n".join([lines[0], *reversed(lines[1:6]), *lines[6:]])
    assert parse_page_response(shuffled) == GOOD
    assert breaks(shuffled, "strict") == [(2, "order")]


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("body", ["", "\n", "\n\n  \n"])
def test_a_page_without_text_has_none(body, mode):
    assert parse_page_response(answer(body=body), mode).natural_text is None


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_dashes_in_the_body_end_nothing(mode):
    assert parse_page_response(answer(body="\na\n---\nb"), mode).natural_text == "a\n---\nb"


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Hello", [(1, "opener")]),
        ("", [(1, "opener")]),
        ("<think>hm</think>" + answer(), [(1, "opener")]),
        ("---\nprimary_language: en\n", [(1, "closer")]),
        (answer().replace("is_table: False\n", ""), [(6, "missing-field")]),
        (answer().replace("---\nprimary", "---\npage: 1\nprimary"), [(2, "unknown-field")]),
    ],
)
def test_every_broken_rule_is_named_with_its_line(raw, expected, mode):
    assert breaks(raw, mode) == expected


def test_all_broken_rules_are_named_at_once():
    assert breaks(answer(valid="maybe", rotation="45")) == [(3, "value"), (4, "value")]


def sentences(raw, mode="lenient"):
    with pytest.raises(PageResponseError) as error:
        parse_page_response(raw, mode)
    return [each.message for each in error.value.breaks]


LONG = "abcdefghij" * 10


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (LONG, f"the answer begins with {LONG[:40]!r}, not with a line '---'"),
        ("Hello\nthere", "the answer begins with 'Hello', not with a line '---'"),
        ("---\nis_table: True\n", "the front matter that begins here has no closing line '---'"),
        (answer(valid=LONG), f"is_rotation_valid is {LONG[:60]!r}, not True or False"),
        (answer(rotation="45"), "rotation_correction is '45', not 0, 90, 180 or 270"),
        (answer(language="[en]"), "primary_language is 'a list or a mapping', not a language code or null"),
        (answer().replace("is_diagram", LONG), f"{LONG[:60]!r} is not a field of the format"),
        ("---\n- x\n---\n", "the front matter is not a list of 'name: value'"),
        (f"---\n{'[' * 3000}\n---\n", "the front matter is not YAML: nested too deeply"),
        ("---\na: b: c\n---\n", "the front matter is not YAML: mapping values are not allowed here"),
    ],
)
def test_a_broken_rule_quotes_the_beginning_of_what_broke_it(raw, sentence):
    assert sentence in sentences(raw)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (answer(body="- more\nHello"), "the closing line is '---- more', not '---'"),
        (answer(valid=LONG), f"is_rotation_valid is {LONG[:60]!r}, not True|False|true|false"),
        (answer().replace("is_diagram: False", f"is_diagram: False\n{LONG}"), f"{LONG[:60]!r} is not 'name: value'"),
        (
            answer().replace("is_table: False\nis_diagram: False", "is_diagram: False\nis_table: False"),
            "the fields come as primary_language, is_rotation_valid, rotation_correction, is_diagram, is_table, "
            "not once each as primary_language, is_rotation_valid, rotation_correction, is_table, is_diagram",
        ),
    ],
)
def test_strict_quotes_as_well_what_only_it_refuses(raw, sentence):
    assert sentences(raw, "strict") == [sentence]


@pytest.mark.parametrize(
    ("word", "value"),
    [("True", True), ("yes", True), ("ON", True), ("False", False), ("no", False), ("off", False)],
)
def test_yamls_words_for_true_and_false_are_read_leniently(word, value):
    page = parse_page_response(answer(valid=word, table=word, diagram=word))
    assert (page.is_rotation_valid, page.is_table, page.is_diagram) == (value, value, value)


def test_a_fence_that_the_answer_itself_leaves_open_stays_in_its_text():
    assert parse_page_response(answer(body="\na\n```")).natural_text == "a\n```"


@pytest.mark.parametrize("closer", ["----", "---Hello"])
def test_a_closing_line_with_more_on_it_is_accepted_only_leniently(closer):
    raw = answer(body="").removesuffix("---") + closer
    assert parse_page_response(raw).natural_text == closer[3:]
    assert breaks(raw, "strict") == [(7, "closer")]


@pytest.mark.parametrize(
    "front_matter",
    [
        "[" * 5000,
        "a: &a [x]\nb: *a",
        "a: b: c",
        "\tx: 1",
        "x",
        "- x",
        "? [a]\n: b",
        "!!python/object/apply:os.system ['true']: x",
        "a: \x07",
    ],
)
def test_a_hostile_front_matter_is_refused_and_never_built(front_matter):
    assert breaks(f"---\n{front_matter}\n---\nHello")


@given(st.text())
def test_any_text_is_read_or_refused_in_both_modes(raw):
    for mode in ("strict", "lenient"):
        for text in (raw, f"---\n{raw}\n---\n{raw}", f"```\n{raw}"):
            try:
                parse_page_response(text, mode)
            except PageResponseError as error:
                assert error.breaks


@given(
    st.sampled_from(["null", "bool", "int", "float", "str", "timestamp", "binary", "python/name:os.system"]),
    st.text(alphabet="-+_.:0x19aeEntrufls'\"", max_size=6),
    st.sampled_from(["primary_language", "is_table", "rotation_correction"]),
)
def test_a_value_under_any_tag_is_read_or_refused(tag, value, field):
    raw = "\n".join(f"{field}: !!{tag} {value}" if line.startswith(field) else line for line in answer().split("\n"))
    try:
        parse_page_response(raw)
    except PageResponseError as error:
        assert error.breaks


EXACT_BOOLEANS = st.sampled_from(["True", "False", "true", "false"])


@given(
    st.builds(
        answer,
        language=st.sampled_from(["en", "no", "null", "None"]),
        valid=EXACT_BOOLEANS,
        rotation=st.sampled_from(["0", "90", "180", "270"]),
        table=EXACT_BOOLEANS,
        diagram=EXACT_BOOLEANS,
        body=st.one_of(st.just(""), st.text().map(lambda text: "\n" + text)),
    )
)
def test_what_strict_accepts_lenient_reads_the_same(raw):
    assert parse_page_response(raw, "strict") == parse_page_response(raw, "lenient")


def upstream_reads(raw):
    """Return upstream's reading of *raw* (allenai/olmocr 0.4.27, re-told), or None where it refuses."""
    end = raw.find("\n---", 4)
    if not raw.startswith("---\n") or end < 0:
        return None
    try:
        fields = yaml.safe_load(raw[4:end])
    except yaml.YAMLError:
        return None
    names = ["primary_language", "is_rotation_valid", "rotation_correction", "is_table", "is_diagram"]
    if not isinstance(fields, dict) or sorted(map(str, fields)) != sorted(names):
        return None
    language = fields["primary_language"] or None
    flags = [fields[name] for name in names if name.startswith("is_")]
    flags = [each.lower() == "true" if isinstance(each, str) else each for each in flags]
    try:
        degrees = fields["rotation_correction"]
        degrees = int(degrees) if isinstance(degrees, str) else degrees
    except ValueError:
        return None
    types_fit = isinstance(language, str | None) and isinstance(degrees, int) and all(type(f) is bool for f in flags)
    if not types_fit or degrees not in (0, 90, 180, 270):
        return None
    return PageResponse(language, flags[0], degrees, flags[1], flags[2], raw[end + 4 :].strip() or None)


# Spellings that upstream reads rightly, and ones that it refuses; what it reads wrongly has tests of its own above.
LANGUAGES = st.sampled_from(["en", "'de'", '"fr"', "null", "~", "", "eng", "zh-Hans", "en # comment", "12", "[en]"])
BOOLEANS = st.sampled_from(["True", "false", "TRUE", "yes", "off", "'true'", '"False"', "1", "null", "[True]"])
DEGREES = st.sampled_from(["0", "90", "'180'", "0x5A", "0132", "1:30", "+90", "0b1011010", "45", "-90", "90.0", "null"])
BODIES = st.sampled_from(["", "\n", "\nHello", "\n\n a\n---\nb ", "-", "Hello", "\nnull", "\n```\nx\n```"])


@given(
    st.builds(answer, LANGUAGES, BOOLEANS, DEGREES, BOOLEANS, BOOLEANS, BODIES),
    st.permutations(range(1, 6)),
    st.sampled_from(["", "is_table: True\n", "extra: 1\n", "# comment\n"]),
)
def test_what_upstream_reads_rightly_is_read_the_same(raw, order, inserted):
    lines = raw.split("\n")
    lines[1:6] = [lines[number] for number in order]
    raw = "\n".join(lines).replace("---\n", f"---\n{inserted}", 1)
    expected = upstream_reads(raw)
    if expected is not None:
        assert parse_page_response(raw) == expected


@pytest.mark.parametrize("opener", ["--- \n", "---\t \n", "\n--- \n", "--- \r\n", "---\r"])
def test_blanks_and_other_line_ends_after_the_first_line_are_mended(opener):
    raw = opener + answer().removeprefix("---\n")
    raw = raw.replace("\n", "\r") if opener == "---\r" else raw
    assert parse_page_response(raw).natural_text == "Hello"
    with pytest.raises(PageResponseError):
        parse_page_response(raw, "strict")


def test_a_front_matter_is_read_up_to_4096_characters_and_no_further():
    room = LONGEST_FRONT_MATTER - (answer().index("\n---\n", 4) - 4) - len("# \n")
    fits, does_not = (answer().replace("---\n", f"---\n# {'x' * length}\n", 1) for length in (room, room + 1))
    assert parse_page_response(fits).natural_text == "Hello"
    assert sentences(does_not) == ["the front matter that begins here has no closing line '---' within 4096 characters"]


TURNED = answer(valid="False", rotation="90")


@pytest.mark.parametrize(
    "raw",
    [
        TURNED,
        TURNED[: TURNED.index("is_table")],
        TURNED[: TURNED.index("is_table") + 4],
        TURNED.replace("is_diagram: False\n", ""),
        TURNED.replace("is_table: False", "is_table: maybe"),
        "\ufeff" + TURNED,
        "```yaml\n" + TURNED,
        "```\n\n" + TURNED,
        "\n \n" + TURNED,
        TURNED.replace("\n", "\r\n"),
        TURNED.replace("90", "'90'").replace("False", '"false"'),
        TURNED.replace("---\n", "--- \n", 1),
        TURNED + "| a " * 100_000,
    ],
)
def test_an_answer_that_is_cut_or_broken_still_says_how_its_page_is_turned(raw):
    assert stated_turn(raw) == 90


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "Hello",
        "---",
        "---\n",
        answer(),
        answer(valid="True", rotation="90"),
        answer(valid="False", rotation="0"),
        answer(valid="False", rotation="45"),
        answer(valid="maybe", rotation="90"),
        TURNED[: TURNED.index("90") + 1],
        TURNED.replace("rotation_correction", "correction"),
        "Text before\n" + TURNED,
        f"---\n{'[' * 3000}\n---\n",
        "---\n" + "a: b\n" * 100_000 + TURNED,
    ],
)
def test_an_answer_that_does_not_say_plainly_how_its_page_is_turned_turns_nothing(raw):
    assert stated_turn(raw) == 0


@given(
    st.lists(st.sampled_from([*answer().splitlines(keepends=True), *"-:'\"[]{}&*!|>%#\n \t", "a: b\n", "? ", "é"]))
    .map("".join)
    .map(lambda text: "---\n" + text * 50 + "\n---\n"),
    st.sampled_from(["strict", "lenient"]),
)
def test_whatever_a_front_matter_is_the_reason_why_it_is_none_stays_short(raw, mode):
    assert stated_turn(raw) in ROTATIONS
    try:
        parse_page_response(raw, mode)
    except PageResponseError as error:
        assert len(str(error)) < 2000
        assert all(len(str(each)) < 500 for each in error.breaks)


def test_the_text_of_an_error_names_eight_rules_and_counts_the_others():
    raw = answer().replace("---\n", "---\n" + "".join(f"x{number}: 1\n" for number in range(20)), 1)
    with pytest.raises(PageResponseError) as error:
        parse_page_response(raw)
    assert len(error.value.breaks) == 20
    assert str(error.value).count("is not a field of the format") == 8
    assert str(error.value).endswith("; and 12 more")


@pytest.mark.parametrize("language", ['"\\ud800"', "x" * 61])
def test_a_language_that_no_file_could_hold_is_refused(language):
    assert breaks(answer(language=language)) == [(2, "value")]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (answer(), "Hello"),
        (answer(body=""), ""),
        (answer(body="\n\n a\n---\nb \n"), "a\n---\nb"),
        (answer(language="a language"), "Hello"),
        ("```yaml\n" + answer() + "\n```", "Hello"),
        ("\ufeff" + answer().replace("\n", "\r\n"), "Hello"),
        ("# Hello", "# Hello"),
        ("---\nprimary_lang", "---\nprimary_lang"),
    ],
)
def test_the_text_is_what_stands_below_the_front_matter_however_that_is(raw, text):
    assert text_below(raw) == text


@given(st.text(alphabet="-\n `a", max_size=30), st.booleans(), st.integers(0, 200))
def test_what_is_told_of_a_text_while_it_is_written_is_how_it_begins(body, has_front_matter, count):
    raw = answer(body=body) if has_front_matter else body
    assert text_below(raw).startswith(text_so_far(raw[:count]))
    assert text_so_far(answer(body="\na b c")) == "a b c"
