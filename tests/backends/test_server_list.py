import pytest

from olmocr.backends.config import BackendConfig
from olmocr.backends.server_list import NamedServer, named_servers, read_server_list
from olmocr.errors import UsageError


def test_each_server_is_shown_the_key_that_it_names_and_no_other():
    names = ("http://a:1", "http://b:2 $KEY_B", "http://c:3 -")
    assert named_servers(names, "for all", {"KEY_B": "b's own"}) == (
        NamedServer("http://a:1", "for all"),
        NamedServer("http://b:2", "b's own"),
        NamedServer("http://c:3", None),
    )


@pytest.mark.parametrize("environment", [{}, {"KEY_B": ""}])
def test_a_key_that_is_not_there_is_asked_for_and_none_is_sent_instead(environment):
    with pytest.raises(UsageError, match="server http://b:2 is expected in the variable KEY_B, which is not set"):
        named_servers(["http://b:2 $KEY_B"], "for all", environment)


def test_a_key_is_not_shown_with_its_server():
    assert "secret" not in repr(NamedServer("http://a:1", "secret"))


def test_a_file_has_a_server_a_line_and_remarks(tmp_path):
    path = tmp_path / "servers.txt"
    path.write_text(
        "\ufeff# our Macs\nhttp://a:1\n\n  http://b:2  $KEY_B   # in the cellar\n#http://c:3\nhttp://d:4 -\n"
    )
    assert read_server_list(path) == ("http://a:1", "http://b:2  $KEY_B", "http://d:4 -")


def test_a_file_without_a_server_is_refused(tmp_path):
    (tmp_path / "empty").write_text("# nothing yet\n")
    with pytest.raises(UsageError, match="names none; write one address per line"):
        read_server_list(tmp_path / "empty")


@pytest.mark.parametrize("name", ["missing.txt", "http://a:1/v1"])
def test_a_file_that_is_not_there_is_refused_and_an_address_is_told_where_to_go(name, tmp_path):
    with pytest.raises(UsageError, match="cannot be read") as caught:
        read_server_list(tmp_path / name)
    assert ("name a server itself with `server`" in str(caught.value)) == name.startswith("http")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("http://a:1 KEY", r"write \$NAME for that, or - for no key"),
        ("http://a:1 $KEY more", r"write \$NAME for that"),
        ("http://a:1 $1", r"write \$NAME for that"),
        ("   ", "a server's address is empty"),
        ("http://me:pass@a:1 KEY", "whose address has an @ is followed by more"),
    ],
)
def test_a_name_with_more_than_an_address_and_a_key_is_refused(name, why):
    with pytest.raises(UsageError, match=why) as caught:
        BackendConfig(server=(name, "http://b:2"))
    assert "pass@" not in str(caught.value)


def test_one_server_may_be_given_as_before_or_in_a_list_and_none_as_an_empty_one():
    assert BackendConfig(server="http://a:1").server == "http://a:1"
    assert BackendConfig(server=["http://a:1"]).server == "http://a:1"
    assert BackendConfig(server=["http://a:1", "http://b:2"]).servers == ("http://a:1", "http://b:2")
    assert BackendConfig(model="m", server=()).server is None
    assert BackendConfig(model="m").servers == ()


def test_a_server_that_is_named_twice_is_refused():
    with pytest.raises(UsageError, match="the server http://a:1 is named twice"):
        BackendConfig(server=("http://a:1", "http://b:2", "http://a:1 -"))


def test_several_servers_are_asked_for_more_pages_at_once():
    assert BackendConfig(server=("http://a:1", "http://b:2")).pages_at_once == 16
    assert BackendConfig(server=("http://a:1", "http://b:2"), max_concurrent_pages=3).pages_at_once == 6
