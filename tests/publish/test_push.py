"""A push, with the real client against a Hub on the loopback interface: its order, and what it refuses."""

import dataclasses
import hashlib
import json
import shutil

import pytest
from huggingface_hub import snapshot_download

from olmocr.errors import HubError, UsageError
from olmocr.hub.write import Hub, why_not_writable
from olmocr.publish.card import Variant
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import find_facts
from olmocr.publish.push import Push, card_text, carry_out, plan_push, show_plan
from tests.hub.hub_writes import TOKEN, Account, Blob, Fault, Repository
from tests.publish.pushes import REPO, WEIGHTS, files_of, messages_of, plan, push, whole
from tests.publish.samples import change_report, model_copy, weights_of


def test_all_files_go_up_and_the_card_goes_last(hub, model):
    done = push(hub, model)
    assert messages_of(hub) == ["initial", "Add weights", "Add the model card"]
    there = files_of(hub)
    assert set(there) == {path.name for path in model.iterdir()} | {".gitattributes", "README.md"}
    assert there[WEIGHTS].content == (model / WEIGHTS).read_bytes()
    assert done.sha == hub.repositories[REPO].find("main").sha
    assert b"Gate: passed" in there["README.md"].content
    assert not hub.repositories[REPO].private


def test_what_was_pushed_can_be_fetched_and_is_the_same(hub, model, tmp_path):
    push(hub, model)
    snapshot_download(REPO, endpoint=hub.endpoint, local_dir=tmp_path / "down")
    for path in model.iterdir():
        assert (tmp_path / "down" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_second_push_sends_nothing(hub, model):
    push(hub, model)
    before = len(hub.writes())
    done = push(hub, model)
    assert done.uploaded == ()
    assert len(hub.writes()) == before


def test_a_second_push_sends_only_what_changed(hub, model):
    push(hub, model)
    change_report(model, lambda report: report.update(seconds=1.5))
    done = push(hub, model)
    assert done.uploaded == ("conversion_report.json",)
    assert len(hub.puts()) == 1


def test_stale_weights_of_an_earlier_push_are_deleted_with_the_same_commit(hub, model):
    push(hub, model)
    hub.repositories[REPO].add(
        {"model-00002-of-00002.safetensors": Blob(b"old", True), "notes.txt": Blob(b"mine", False)}
    )
    done = push(hub, model)
    assert done.deleted == ("model-00002-of-00002.safetensors",)
    assert "notes.txt" in files_of(hub)


def test_a_dry_run_lists_everything_and_changes_nothing(hub, model):
    push(hub, model)
    change_report(model, lambda report: report.update(seconds=1.5))
    (model / "added_tokens.json").write_text("{}")
    hub.repositories[REPO].add({"model-00002-of-00002.safetensors": Blob(b"old", True)})
    before = len(hub.writes())
    text = show_plan(plan(hub, model))
    assert len(hub.writes()) == before
    sha256 = hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()
    assert f"keep        {WEIGHTS}  {(model / WEIGHTS).stat().st_size:,} bytes  SHA-256 {sha256}" in text
    assert "replace     conversion_report.json" in text
    assert "add         added_tokens.json" in text
    assert "delete      model-00002-of-00002.safetensors" in text
    assert f"tester/tiny-8bit is at {hub.repositories[REPO].find('main').sha}, public" in text
    assert "gate        fidelity: ok: Within its limits." in text
    assert "library_name: mlx" not in text
    last = text.splitlines()[-1]
    assert last.startswith(f"would push to {REPO}: add 1, replace 1, delete 1, keep ")
    assert last.endswith("all gates passed. Nothing was changed yet")


def test_a_dry_run_of_a_repository_that_is_not_there_makes_none(hub, model):
    assert "tester/tiny-8bit will be made, private" in show_plan(plan(hub, model, private=True))
    assert hub.repositories == {}


def test_a_private_repository_is_made_private(hub, model):
    push(hub, model, private=True)
    assert hub.repositories[REPO].private


def test_private_is_not_taken_for_granted_where_the_repository_is_public(hub, model):
    hub.repositories[REPO] = Repository()
    with pytest.raises(HubError, match="is public, and --private does not change that"):
        push(hub, model, private=True)
    assert hub.writes() == []


@pytest.mark.parametrize("repo", ["model", "a/b/c", "../x", "a/b c", "a/-b", "a/b..c", "a/b-", "a/b.git", "a/b\n", ""])
def test_a_name_that_is_not_a_repository_is_a_usage_error(repo):
    with pytest.raises(UsageError, match="is not a repository's name"):
        Push(repo)


def test_a_pull_request_is_to_main_only():
    with pytest.raises(UsageError, match="leave --revision and --collection out"):
        Push(REPO, create_pr=True, revision="draft")


FOREIGN = {"README.md": Blob(b"somebody's", False), "config.json": Blob(b"{}", False)}


def test_a_repository_that_we_did_not_make_is_left_alone(hub, model):
    hub.repositories[REPO] = Repository()
    hub.repositories[REPO].add(FOREIGN)
    with pytest.raises(HubError, match=r"holds 3 files that this package did not put there; choose another --repo"):
        push(hub, model)
    assert hub.writes() == []
    push(hub, model, force=True)
    assert "not measured" in str(files_of(hub)["README.md"].content)


def test_another_variant_is_not_overwritten(hub, model):
    push(hub, model)
    change_report(model, lambda report: report["recipe"].update(name="4bit"))
    with pytest.raises(HubError, match="holds 8bit of source, but this is 4bit of source"):
        push(hub, model)


@pytest.mark.parametrize("report", [b"", b"{}", b"[[", b"\xff"])
def test_a_report_that_is_none_makes_no_repository_ours(report, hub, model):
    hub.repositories[REPO] = Repository()
    hub.repositories[REPO].add({"conversion_report.json": Blob(report, False)})
    with pytest.raises(HubError, match=r"holds a conversion_report\.json that is not from this package"):
        push(hub, model)


def test_a_pull_request_offers_it_and_leaves_main_as_it_is(hub, model):
    hub.repositories["somebody/model"] = Repository()
    before = hub.repositories["somebody/model"].add(FOREIGN)
    done = push(hub, model, "somebody/model", create_pr=True)
    assert done.where == f"{hub.endpoint}/somebody/model/discussions/1"
    assert hub.repositories["somebody/model"].find("main") == before
    there = files_of(hub, "somebody/model", "refs/pr/1")
    assert there[WEIGHTS].content == (model / WEIGHTS).read_bytes()
    assert there["README.md"].content != b"somebody's"
    assert len(hub.repositories["somebody/model"].branches) == 2


def test_a_pull_request_can_be_gone_on_with(hub, model):
    hub.repositories["somebody/model"] = Repository()
    hub.repositories["somebody/model"].add(FOREIGN)
    push(hub, model, "somebody/model", create_pr=True)
    change_report(model, lambda report: report.update(seconds=1.5))
    done = push(hub, model, "somebody/model", revision="refs/pr/1")
    assert done.uploaded == ("conversion_report.json",)
    assert len(hub.puts()) == 1


def test_nothing_is_offered_to_a_repository_that_is_not_there(hub, model):
    with pytest.raises(HubError, match="so it cannot get a pull request"):
        push(hub, model, create_pr=True)


def test_a_branch_is_made_where_it_is_not_there(hub, model):
    push(hub, model, revision="draft")
    assert WEIGHTS in files_of(hub, revision="draft")
    assert set(files_of(hub)) == {".gitattributes"}


def test_it_is_put_into_a_collection_once(hub, model):
    hub.collections["tester/small-ocr-0123456789abcdef01234567"] = []
    for _ in range(2):
        push(hub, model, collection="tester/small-ocr-0123456789abcdef01234567")
    assert hub.collections == {"tester/small-ocr-0123456789abcdef01234567": [REPO]}


def test_a_commit_by_somebody_else_is_noticed_and_nothing_overwritten(hub, model):
    push(hub, model)
    change_report(model, lambda report: report.update(seconds=1.5))
    hub.faults.append(Fault("POST", "/preupload/", meanwhile=lambda: hub.repositories[REPO].add(FOREIGN)))
    with pytest.raises(HubError, match="got another commit meanwhile"):
        push(hub, model)
    assert files_of(hub)["README.md"].content == b"somebody's"


def test_a_commit_by_somebody_else_before_the_card_is_noticed(hub, model):
    hub.faults.append(
        Fault("GET", f"{REPO}/revision/main", meanwhile=lambda: hub.repositories[REPO].add(FOREIGN), times=1)
    )
    with pytest.raises(HubError, match="was changed by someone else meanwhile"):
        push(hub, model)
    assert files_of(hub)["README.md"].content == b"somebody's"


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_file_that_arrived_otherwise_is_noticed_and_no_card_is_written(name, hub, model):
    hub.tampered[name] = (model / name).read_bytes()[:-1] + b"!"
    with pytest.raises(HubError, match=f"holds other files than were sent, by size or hash: {name}"):
        push(hub, model)
    assert "README.md" not in files_of(hub)
    hub.tampered.clear()
    push(hub, model)
    assert "README.md" in files_of(hub)


@pytest.mark.parametrize(
    ("account", "why"),
    [
        (Account("other"), "tester is not its owner, other, or an organisation of theirs"),
        (Account("other", organisations={"tester": "read"}), "its owner has only read access in tester"),
        (Account(role="read"), "it is a read-only token"),
        (
            Account(role="fineGrained", may_write_to=("else",)),
            "it is a fine-grained token without write access to tester",
        ),
    ],
)
def test_a_token_that_may_not_write_is_told_so_before_anything_is_changed(account, why, hub, model):
    hub.account = account
    with pytest.raises(HubError, match=why):
        push(hub, model)
    assert hub.writes() == []


def test_a_fine_grained_token_for_the_namespace_will_do(hub, model):
    hub.account = Account(role="fineGrained", may_write_to=("tester",))
    push(hub, model)
    assert why_not_writable(hub.account.about(), REPO) is None


def test_a_token_that_is_not_valid_is_not_repeated(hub, model):
    with pytest.raises(HubError, match="does not know the token") as caught:
        plan(hub, model, token="hf_" + "x" * 34)
    assert "xxx" not in str(caught.value)
    assert hub.writes() == []


def test_a_table_of_variants_and_their_picture_are_published(hub, model, tiny, tmp_path):
    other = Variant("tester/other", read_reports(model_copy(tiny, tmp_path / "other", mean_kl=0.4)))
    push(hub, model, siblings=[other])
    assert files_of(hub)["size-fidelity.svg"].content.startswith(b"<svg")
    assert b"| tester/other |" in files_of(hub)["README.md"].content
    card = files_of(hub)["README.md"].content
    push(hub, model)
    assert files_of(hub)["README.md"].content == card
    push(hub, model, alone=True)
    assert not {"size-fidelity.svg", "variants.json"} & set(files_of(hub))
    assert b"tester/other" not in files_of(hub)["README.md"].content


def test_a_later_push_tells_of_earlier_variants_and_of_new_ones_by_what_is_new(hub, model, tiny, tmp_path):
    old, new = (
        Variant("tester/other", read_reports(model_copy(tiny, tmp_path / name, mean_kl=kl)))
        for name, kl in (("old", 0.4), ("new", 0.25))
    )
    third = Variant("tester/third", read_reports(model_copy(tiny, tmp_path / "third", mean_kl=0.5)))
    push(hub, model, siblings=[old])
    push(hub, model, siblings=[third])
    card = files_of(hub)["README.md"].content.decode()
    assert card.count("| tester/other | ") == card.count("| tester/third | ") == 2
    push(hub, model, siblings=[new])
    card = files_of(hub)["README.md"].content.decode()
    assert "| 0.25 | 6 of 8 |" in card
    assert "| 0.4 | 6 of 8 |" not in card
    assert "tester/third" in card


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"variants": [{"title": 3}], "version": 1}', b"\xff"])
def test_rows_of_variants_that_are_none_are_told_no_more(content, hub, model):
    push(hub, model)
    hub.repositories[REPO].add({"variants.json": Blob(content, False)})
    push(hub, model)
    assert "variants.json" not in files_of(hub)


def test_a_later_push_keeps_the_base_model_and_the_license(hub, model):
    variant = Variant(REPO, read_reports(model))
    facts = find_facts(variant.reports.conversion, "tester/base", "mit")
    there = Hub(hub.endpoint, TOKEN)
    carry_out(plan_push(Push(REPO), variant, (), facts, there, whole), there)
    made = plan(hub, model)
    assert made.notes == ()
    assert "base_model: tester/base" in card_text(made)
    assert "license: mit" in card_text(made)


def test_a_plan_says_what_an_audit_would_find_wrong_with_its_card(hub, model):
    assert "card        the card does not name a base model, which an audit would report" in show_plan(plan(hub, model))


def test_a_readme_in_the_folder_is_not_what_is_published(hub, model):
    (model / "README.md").write_text("by hand")
    push(hub, model)
    assert b"by hand" not in files_of(hub)["README.md"].content


def test_the_reports_that_are_published_are_those_of_the_weights(hub, model):
    push(hub, model)
    for name in ("smoke_report.json", "fidelity_report.json"):
        assert json.loads(files_of(hub)[name].content)["weights"] == weights_of(model)


def test_a_plan_says_all_and_holds_no_token(hub, model):
    made = plan(hub, model)
    assert TOKEN not in show_plan(made)
    assert TOKEN not in str(dataclasses.replace(made, files=()))


def test_sharded_weights_go_up_file_by_file(hub, model):
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    shutil.move(model / WEIGHTS, model / shards[0])
    (model / shards[1]).write_bytes((model / shards[0]).read_bytes() + b"\0")
    hashes = {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in shards}
    files = [{"name": name, "nbytes": (model / name).stat().st_size, "sha256": hashes[name]} for name in shards]
    change_report(model, lambda report: report.update(files=files))
    for name in ("smoke_report.json", "fidelity_report.json"):
        report = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**report, "weights": hashes}))
    push(hub, model)
    assert sorted(hub.puts()) == sorted(hashes.values())
