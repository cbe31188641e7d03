"""Under which URL links are made, and what may stand in a path (PS3.18 §8.1; RFC 9110 §7.2, RFC 7239)."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.address import MAX_FRAMES, parse_frame_list, path_uid, service_root
from app.errors import RequestError, UnknownHost

PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1/128"), ip_network("127.0.0.1/32"))


def direct(host: str | None, scheme: str = "http", port: int | None = 8042, **settings: object) -> str:
    return service_root(scheme, {} if host is None else {"host": host}, "192.0.2.7", port, **settings)  # type: ignore[arg-type]  # settings by name


def proxied(peer: str | None = "10.0.0.1", **headers: str) -> str:
    fields = {"host": "inner:8042"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return service_root("http", fields, peer, 8042, trusted_proxies=PROXIES)


@pytest.mark.parametrize(
    ("host", "scheme", "port", "root"),
    [
        ("pacs.example.org:8042", "http", 8042, "http://pacs.example.org:8042/dicomweb"),
        ("pacs.example.org", "http", 80, "http://pacs.example.org/dicomweb"),
        ("pacs.example.org", "https", 443, "https://pacs.example.org/dicomweb"),
        ("pacs.example.org:80", "http", 80, "http://pacs.example.org/dicomweb"),
        ("pacs.example.org:443", "http", 443, "http://pacs.example.org:443/dicomweb"),
        ("PACS.Example.ORG.", "http", 80, "http://pacs.example.org/dicomweb"),
        ("127.0.0.1:8042", "http", 8042, "http://127.0.0.1:8042/dicomweb"),
        ("[::1]:8042", "http", 8042, "http://[::1]:8042/dicomweb"),
        ("[2001:DB8:0::1]", "http", 80, "http://[2001:db8::1]/dicomweb"),
        ("docker_service:1", "http", 8042, "http://docker_service:1/dicomweb"),
    ],
)
def test_links_are_built_from_scheme_and_host(host, scheme, port, root):
    assert direct(host, scheme, port) == root


def test_dicomweb_client_sends_host_without_port_so_ours_is_filled_in():
    assert direct("127.0.0.1") == "http://127.0.0.1:8042/dicomweb"
    assert direct("localhost", "https", 8443) == "https://localhost:8443/dicomweb"
    assert direct("localhost", port=None) == "http://localhost/dicomweb"


def test_the_public_url_beats_everything():
    root = service_root(
        "http",
        {"host": "evil", "forwarded": "host=evil"},
        "10.0.0.1",
        8042,
        public_url="https://pacs.example.org/dicomweb/",
        trusted_proxies=PROXIES,
        allowed_hosts=["other"],
    )

    assert root == "https://pacs.example.org/dicomweb"


def test_the_prefix_of_the_service_is_a_setting():
    assert direct("h", prefix="") == "http://h:8042"
    assert direct("h", prefix="/a/b") == "http://h:8042/a/b"


# Proxies


@pytest.mark.parametrize(
    ("headers", "root"),
    [
        ({"forwarded": "proto=https;host=pacs.example.org"}, "https://pacs.example.org/dicomweb"),
        (
            {"forwarded": 'for=192.0.2.9;host="pacs.example.org:8443";proto=https'},
            "https://pacs.example.org:8443/dicomweb",
        ),
        ({"forwarded": 'Host="a:1" ; Proto=HTTPS'}, "https://a:1/dicomweb"),
        ({"forwarded": "proto=https"}, "https://inner:8042/dicomweb"),
        ({"forwarded": 'for="[2001:db8::1]:4711";; host=a;'}, "http://a/dicomweb"),
        ({"x_forwarded_proto": "https", "x_forwarded_host": "pacs.example.org"}, "https://pacs.example.org/dicomweb"),
        ({"x_forwarded_host": "a:8443", "x_forwarded_proto": "https"}, "https://a:8443/dicomweb"),
        (
            {"x_forwarded_host": "a", "x_forwarded_proto": "https", "x_forwarded_port": "8443"},
            "https://a:8443/dicomweb",
        ),
        ({"x_forwarded_host": "a", "x_forwarded_proto": "https", "x_forwarded_port": "443"}, "https://a/dicomweb"),
        ({"x_forwarded_host": "a", "x_forwarded_proto": "https", "x_forwarded_port": "80"}, "https://a/dicomweb"),
        ({"x_forwarded_host": "a:1", "x_forwarded_port": "2"}, "http://a:1/dicomweb"),
        ({"x_forwarded_host": "a", "x_forwarded_prefix": "/imaging"}, "http://a/imaging/dicomweb"),
        ({"x_forwarded_host": "a", "x_forwarded_prefix": "/imaging/x/"}, "http://a/imaging/x/dicomweb"),
        ({"x_forwarded_host": "a", "x_forwarded_prefix": "/"}, "http://a/dicomweb"),
        ({"forwarded": "host=a", "x_forwarded_host": "b", "x_forwarded_prefix": "/p"}, "http://a/p/dicomweb"),
        ({"forwarded": "for=192.0.2.9", "x_forwarded_host": "b"}, "http://b/dicomweb"),
        ({"x_forwarded_for": "192.0.2.9", "host": "pacs.example.org"}, "http://pacs.example.org/dicomweb"),
    ],
)
def test_a_trusted_proxy_says_how_it_was_asked(headers, root):
    assert proxied(**headers) == root


@pytest.mark.parametrize("peer", ["192.0.2.7", None, "testclient", "", "11.0.0.1", "::2", "10.0.0.1.evil"])
def test_nobody_else_is_believed(peer):
    headers = {"forwarded": "host=evil;proto=https", "x_forwarded_host": "evil", "x_forwarded_prefix": "/evil"}

    assert proxied(peer, **headers) == "http://inner:8042/dicomweb"


@pytest.mark.parametrize("peer", ["10.255.0.1", "::1", "::ffff:10.0.0.1", "127.0.0.1"])
def test_a_proxy_is_known_by_its_network(peer):
    assert proxied(peer, x_forwarded_host="a") == "http://a/dicomweb"


def test_in_a_chain_only_what_trusted_proxies_wrote_counts():
    """Each proxy adds on the right what it saw; a client can put anything on the left before it reaches the first."""
    forged = "for=1.1.1.1;host=evil;proto=http"
    outer = "for=192.0.2.9;host=pacs.example.org;proto=https"
    inner = "for=10.0.0.2;host=middle;proto=http"

    assert proxied(forwarded=f"{forged}, {outer}, {inner}") == "https://pacs.example.org/dicomweb"
    assert proxied(forwarded=f"{forged}, {outer}") == "https://pacs.example.org/dicomweb"
    assert (
        proxied(x_forwarded_host="evil, a, middle", x_forwarded_for="1.1.1.1, 192.0.2.9, 10.0.0.2")
        == "http://a/dicomweb"
    )
    assert proxied(x_forwarded_host="evil, a", x_forwarded_for="1.1.1.1, 192.0.2.9") == "http://a/dicomweb"
    assert proxied(x_forwarded_host="evil, a", x_forwarded_proto="https") == "https://a/dicomweb"


@pytest.mark.parametrize(
    "headers",
    [
        {"forwarded": "host=a\x00b"},
        {"forwarded": 'host="a"b"'},
        {"forwarded": 'host="a/b"'},
        {"forwarded": 'host="a@b"'},
        {"forwarded": "nonsense"},
        {"forwarded": "proto=javascript;host=a"},
        {"forwarded": "host=a;" * 2000},
        {"x_forwarded_proto": "gopher"},
        {"x_forwarded_host": "a/b"},
        {"x_forwarded_port": "x"},
        {"x_forwarded_port": "99999"},
        {"x_forwarded_prefix": "imaging"},
        {"x_forwarded_prefix": "/a/../b"},
        {"x_forwarded_prefix": "//evil"},
        {"x_forwarded_prefix": '/"x'},
        {"x_forwarded_prefix": "/a?b"},
    ],
)
def test_a_malformed_word_of_a_proxy_is_400(headers):
    if "x_forwarded_port" in headers:
        headers = headers | {"x_forwarded_host": "a"}

    with pytest.raises(UnknownHost):
        proxied(**headers)


# Hosts (T20)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        " ",
        "a b",
        "a/b",
        "a\\b",
        "a@b",
        "a#b",
        "a?b",
        'a"b',
        "a'b",
        "a<b>",
        "a\r\nX: 1",
        "a\0",
        "é",
        "a:",
        "a:x",
        "a:0",
        "a:65536",
        "a:1:2",
        "::1",
        "[::1",
        "[zz]",
        "[1.2.3.4]",
        "-a",
        "a-",
        ".a",
        "a..b",
        "_a",
        "%41",
        "a" * 300,
        "a,b",
    ],
)
def test_a_host_that_is_none_makes_no_link(host):
    with pytest.raises(UnknownHost):
        direct(host)


@given(st.text(max_size=60))
def test_no_host_brings_anything_but_a_host_into_a_link(host):
    try:
        root = direct(host)
    except UnknownHost:
        return

    middle = root.removeprefix("http://").removesuffix("/dicomweb")
    assert middle.isascii()
    assert not set(middle) - set("abcdefghijklmnopqrstuvwxyz0123456789.-_:[]")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("pacs.example.org", ["pacs.example.org"]),
        ("PACS.example.org:8042", ["Pacs.Example.org"]),
        ("a.example.org", ["other", "*.example.org"]),
        ("a.b.example.org", ["*.example.org"]),
        ("[::1]:8042", ["::1"]),
        ("[::1]:8042", ["[::1]"]),
        ("a:1", ["a:1"]),
        ("anything", ["*"]),
    ],
)
def test_allowed_hosts_are_served(host, allowed):
    assert direct(host, allowed_hosts=allowed).startswith("http://")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("evil", ["pacs.example.org"]),
        ("example.org", ["*.example.org"]),
        ("evilexample.org", ["*.example.org"]),
        ("pacs.example.org.evil", ["pacs.example.org"]),
        ("a:2", ["a:1"]),
        ("a", []),
    ],
)
def test_other_hosts_are_400(host, allowed):
    with pytest.raises(UnknownHost) as caught:
        direct(host, allowed_hosts=allowed)

    assert host not in caught.value.detail or host == "a"


def test_a_forwarded_host_must_be_allowed_too():
    with pytest.raises(UnknownHost):
        service_root(
            "http",
            {"host": "good", "x-forwarded-host": "evil"},
            "10.0.0.1",
            8042,
            trusted_proxies=PROXIES,
            allowed_hosts=["good"],
        )


# Paths (T16, T25)


@pytest.mark.parametrize("text", ["1.2.840.10008", "a" * 128, "0a-Z", "A" * 64])
def test_uids_of_numbers_and_hashes_may_stand_in_a_path(text):
    assert path_uid(text) == text


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../x", "1/2", "1\\2", "a" * 129, "1.2\0", "1.2\n", "١.٢", "%2e%2e", "1 2", "*"]
)
def test_anything_else_is_refused_before_it_can_be_a_key(text):
    with pytest.raises(RequestError):
        path_uid(text)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1", (1,)),
        ("5,1,2", (5, 1, 2)),
        ("3,3", (3, 3)),
        ("1, 2", (1, 2)),
        ("007", (7,)),
        ("4294967295", (4294967295,)),
    ],
)
def test_a_frame_list_keeps_order_and_repeats(text, numbers):
    assert parse_frame_list(text) == numbers


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1,,2", ",1", "1,", "a", "1.0", "1-1000000", "١", "1_0", "+1", "9" * 30]
)
def test_a_frame_list_is_numbers_from_one(text):
    with pytest.raises(RequestError):
        parse_frame_list(text)


def test_an_endless_frame_list_is_refused():
    assert len(parse_frame_list(",".join(["1"] * MAX_FRAMES))) == MAX_FRAMES
    with pytest.raises(RequestError):
        parse_frame_list(",".join(["1"] * (MAX_FRAMES + 1)))
