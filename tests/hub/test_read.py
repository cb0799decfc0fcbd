"""Parts of what lies on a Hub: headers and single shards, whatever breaks on the way."""

import hashlib
from pathlib import Path

import pytest

from tests.hub.repositories import (
    FETCH,
    SHARDS,
    UNREADABLE,
    WEIGHTS,
    asked_for,
    header_of,
    kept_settings,
    large_files,
    lines,
)
from tests.hub_server import TOKEN, Commit, Cut, HubServer, Repository


@pytest.mark.parametrize("shard", SHARDS, ids=["short", "longer than one request"])
def test_the_header_of_a_remote_shard_is_read_without_its_weights(hub, commits, tmp_path, shard):
    kept_settings(tmp_path, hub)
    (printed,) = lines(tmp_path, hub, f"h, n = remote_header(kept(), {shard!r}); print(h.hex(), n)")
    header = header_of(commits.sharded.folder / shard)
    assert printed == f"{header.hex()} {(commits.sharded.folder / shard).stat().st_size}"
    assert hub.sent[shard] <= len(header) + (128 << 10)
    assert not large_files(tmp_path)


def test_a_server_that_knows_no_ranges_sends_little_more_than_the_header(hub, commits, settings_kept, tmp_path):
    hub.knows_ranges = False
    printed = lines(tmp_path, hub, f"for shard in {SHARDS}: print(remote_header(kept(), shard)[0].hex())")
    assert printed == [header_of(commits.sharded.folder / shard).hex() for shard in SHARDS]
    assert hub.sent[SHARDS[0]] < 4 << 20


def test_a_private_shard_is_fetched_with_a_token_that_only_the_hub_sees(hub, commits, tmp_path):
    kept_settings(tmp_path, hub, "tiny/private", HF_TOKEN=TOKEN)
    fetch = f"print(fetch_shard(kept(), {WEIGHTS!r}, Path('shards')))"
    assert lines(tmp_path, hub, fetch, HF_TOKEN=TOKEN) == [str(Path("shards", WEIGHTS))]
    assert {(asked.host, asked.with_token) for asked in hub.asked} == {("127.0.0.1", True), ("localhost", False)}
    assert lines(tmp_path, hub, f"remote_header(kept(), {WEIGHTS!r})")[0].startswith(
        f"HubError: tiny/private {UNREADABLE}"
    )


@pytest.mark.parametrize(
    ("content", "length"),
    [(b"", 0), (b"\x01\0", 1), (b"\x03" + bytes(7) + b"{}", 3), (b"\xff" * 8 + bytes(1 << 20), (1 << 64) - 1)],
    ids=["empty", "cut", "beyond the end", "absurd"],
)
def test_a_remote_header_of_impossible_length_is_a_damaged_file(tmp_path, content, length):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / WEIGHTS).write_bytes(content)
    with HubServer({"tiny/damaged": Repository({"main": Commit(tmp_path / "model")})}) as hub:
        read = f"remote_header(find_settings('tiny/damaged'), {WEIGHTS!r})"
        assert lines(tmp_path, hub, read) == [
            f"CheckpointError: {WEIGHTS} in tiny/damaged is damaged or not a safetensors file: a header of {length} "
            f"bytes does not fit into its {len(content)}; choose another revision"
        ]


def test_a_header_that_breaks_off_ends_in_a_sentence(hub, settings_kept, tmp_path):
    hub.cut_once[SHARDS[0]] = Cut(20, "closed")
    (printed,) = lines(tmp_path, hub, f"remote_header(kept(), {SHARDS[0]!r})")
    assert printed.startswith("HubError: tiny/sharded could not be downloaded: ")


def test_a_shard_that_the_repository_lacks_is_named(hub, settings_kept, tmp_path):
    sentence = "CheckpointError: tiny/sharded lacks the shard x.safetensors; choose a complete repository or"
    for call in ("remote_header(kept(), 'x.safetensors')", "fetch_shard(kept(), 'x.safetensors', Path('shards'))"):
        (printed,) = lines(tmp_path, hub, call)
        assert printed.startswith(sentence)


def test_a_shard_is_fetched_into_a_folder_and_not_into_the_cache(hub, commits, tmp_path):
    kept_settings(tmp_path, hub)
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]
    assert large_files(tmp_path) == [tmp_path / "shards" / SHARDS[0]]
    content = (tmp_path / "shards" / SHARDS[0]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == commits.sharded.files[SHARDS[0]]
    hub.asked.clear()
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]
    assert hub.asked == []


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_shard_that_breaks_off_is_gone_on_with_in_the_next_call(hub, commits, settings_kept, tmp_path, how):
    hub.cut_once[SHARDS[0]] = Cut(5 << 20, how)
    (printed,) = lines(tmp_path, hub, FETCH)
    assert printed.startswith("HubError: tiny/sharded could not be downloaded: ")
    there = (tmp_path / "shards" / f"{SHARDS[0]}.incomplete").stat().st_size
    assert 0 < there <= 5 << 20
    hub.asked.clear()
    hub.sent.clear()
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]
    size = (commits.sharded.folder / SHARDS[0]).stat().st_size
    assert {asked.byte_range for asked in asked_for(hub, SHARDS[0])} == {f"bytes={there}-{size - 1}"}
    assert hub.sent[SHARDS[0]] == size - there
    assert large_files(tmp_path) == [tmp_path / "shards" / SHARDS[0]]


def test_a_shard_that_breaks_off_is_gone_on_with_by_a_server_that_knows_no_ranges(hub, settings_kept, tmp_path):
    hub.cut_once[SHARDS[0]] = Cut(5 << 20, "closed")
    lines(tmp_path, hub, FETCH)
    hub.knows_ranges = False
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]


def test_a_shard_is_fetched_in_one_call_through_failures_that_pass(hub, settings_kept, tmp_path):
    hub.refuse_once[SHARDS[0]] = 503
    hub.cut_once[SHARDS[0]] = Cut(5 << 20, "closed")
    assert lines(tmp_path, hub, FETCH.replace("patience=()", "patience=(0.01,)")) == [SHARDS[0]]
    assert hub.sent[SHARDS[0]] == (tmp_path / "shards" / SHARDS[0]).stat().st_size


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "the Hub refuses tiny/sharded (401); check that HF_TOKEN is valid"),
        (403, "the Hub refuses tiny/sharded (403); check that HF_TOKEN is valid"),
        (404, "tiny/sharded could not be downloaded: the Hub answered 404; run it again later"),
    ],
)
def test_a_shard_that_is_refused_is_not_asked_for_again(hub, settings_cached, status, sentence):
    hub.refuse_once[SHARDS[0]] = status
    (printed,) = lines(settings_cached, hub, FETCH.replace("patience=()", "patience=(3600,)"))
    assert printed.startswith(f"HubError: {sentence}")


@pytest.mark.parametrize("status", [429, 500])
def test_a_busy_hub_ends_in_a_sentence_when_patience_does(hub, settings_cached, status):
    hub.refuse_once[SHARDS[0]] = status
    (printed,) = lines(settings_cached, hub, FETCH)
    assert printed == f"HubError: tiny/sharded could not be downloaded: the Hub answered {status}; run it again later"


@pytest.mark.parametrize("wrong", ["{}.incomplete", "{}"], ids=["going on from it", "there already"])
@pytest.mark.parametrize("nbytes", [100, 13 << 20], ids=["other bytes", "too many"])
def test_a_shard_that_is_not_what_the_hub_lists_is_removed(hub, settings_kept, tmp_path, wrong, nbytes):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / wrong.format(SHARDS[0])).write_bytes(b"x" * nbytes)
    (printed,) = lines(tmp_path, hub, FETCH)
    assert printed.startswith(f"HubError: {SHARDS[0]} of tiny/sharded is not the file that the Hub lists (by size or")
    assert list((tmp_path / "shards").iterdir()) == []
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]


def test_a_shard_that_is_shorter_than_the_hub_lists_ends_in_a_sentence(hub, commits, settings_cached, tmp_path):
    longer = "replace(kept(), remote_files=tuple(replace(each, size=each.size + 1) for each in kept().remote_files))"
    (printed,) = lines(settings_cached, hub, f"fetch_shard({longer}, {SHARDS[0]!r}, Path({str(tmp_path)!r}))")
    size = (commits.sharded.folder / SHARDS[0]).stat().st_size
    assert printed == (
        f"HubError: tiny/sharded could not be downloaded: {SHARDS[0]} ended after {size} bytes; run it again"
    )


def test_a_full_disk_is_an_output_error_and_what_is_there_is_kept(hub, settings_kept, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    (printed,) = lines(tmp_path, hub, f"{limit}; {FETCH}")
    incomplete = Path("shards", f"{SHARDS[0]}.incomplete")
    assert printed.startswith(f"OutputError: the disk is full: {incomplete} could not be written; free some space")
    assert 0 < (tmp_path / incomplete).stat().st_size <= 1 << 20
    assert lines(tmp_path, hub, FETCH) == [SHARDS[0]]


def test_a_folder_that_cannot_be_written_is_an_output_error(hub, settings_cached, tmp_path):
    (tmp_path / "file").touch()
    (printed,) = lines(settings_cached, hub, f"fetch_shard(kept(), {SHARDS[0]!r}, Path({str(tmp_path)!r}) / 'file')")
    assert printed.startswith(f"OutputError: {tmp_path / 'file' / SHARDS[0]}.incomplete could not be written: ")
