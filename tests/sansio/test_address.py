"""Base URLs and proxies."""

import pytest

from ernie_async.errors import ConfigError
from ernie_async.sansio.address import (
    DEFAULT_BASE_URL,
    find_proxy,
    is_qianfan,
    origin,
    read_base_url,
    read_proxy,
)

SECRET = "bce-v3/ALTAK-id/hex"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (DEFAULT_BASE_URL, "https://qianfan.baidubce.com/v2"),
        ("https://qianfan.baidubce.com/v2/", "https://qianfan.baidubce.com/v2"),
        ("https://qianfan.baidubce.com/v2//", "https://qianfan.baidubce.com/v2"),
        ("  https://host/v2\n", "https://host/v2"),
        ("http://localhost:8188/v1", "http://localhost:8188/v1"),
        ("http://[::1]:8188/v1", "http://[::1]:8188/v1"),
        ("HTTPS://host", "https://host"),
        ("https://host/v2/coding", "https://host/v2/coding"),
        ("https://host/chat/completions/v2", "https://host/chat/completions/v2"),
    ],
)
def test_base_url_is_taken_without_its_last_slash(text: str, url: str) -> None:
    assert read_base_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "", "qianfan.baidubce.com/v2", "//host/v2", "ftp://host", "http://", "https:///v2",
        "http://[::1", "http://host:99999", "http://host:x", "http://host:0", "http://ho st/",
    ],
)  # fmt: skip
def test_what_is_no_base_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^base_url: expected something like https://"):
        read_base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://u:p@host/v2", "https://u@host/v2", "https://:p@host/v2",
        "https://host/v2?key=1", "https://host/v2#x",
    ],
)  # fmt: skip
def test_base_url_holds_no_credential_and_no_query(text: str) -> None:
    with pytest.raises(ConfigError, match="pass the credential as api_key"):
        read_base_url(text)


@pytest.mark.parametrize(
    "text",
    [SECRET, f"Bearer {SECRET}", f"ftp://u:{SECRET}@host", f"https://host/v2?key={SECRET}",
     "https://u:ALTAK@[::1", "https://u:ALTAK@host/v2"],
)  # fmt: skip
def test_credential_given_as_base_url_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_base_url(text)
    assert "ALTAK" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["/chat/completions", "/embeddings", "/models"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_address_of_one_endpoint_is_refused(endpoint: str, slash: str) -> None:
    with pytest.raises(ConfigError, match=f"leave out {endpoint}"):
        read_base_url(f"https://qianfan.baidubce.com/v2{endpoint}{slash}")


def test_closed_v1_service_is_refused() -> None:
    with pytest.raises(ConfigError, match="shut down on 2026-08-31"):
        read_base_url("https://AIP.baidubce.com/rpc/2.0/ai_custom/v1/wenxinworkshop")


@pytest.mark.parametrize(
    ("url", "is_theirs"),
    [
        (DEFAULT_BASE_URL, True),
        ("https://QIANFAN.baidubce.com/v2", True),
        ("https://qianfan.bj.baidubce.com/v2", True),
        ("https://baidubce.com", True),
        ("https://notbaidubce.com", False),
        ("https://baidubce.com.example.com", False),
        ("http://localhost:8188/v1", False),
    ],
)
def test_own_service_is_known_by_its_host(url: str, is_theirs: bool) -> None:
    assert is_qianfan(url) is is_theirs


@pytest.mark.parametrize(
    ("environ", "for_http", "for_https"),
    [
        ({}, None, None),
        ({"http_proxy": "http://a:1"}, "http://a:1", None),
        ({"https_proxy": "http://a:1"}, None, "http://a:1"),
        ({"all_proxy": "http://a:1"}, "http://a:1", "http://a:1"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http://a:1", "http://b:1"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, None, "http://b:1"),
        ({"https_proxy": "http://b:1", "HTTPS_PROXY": "http://a:1"}, None, "http://b:1"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, None, "http://a:1"),
        ({"https_proxy": "a:1"}, None, "http://a:1"),
        ({"https_proxy": "http://u:p@a:1"}, None, "http://u:p@a:1"),
        ({"ftp_proxy": "http://a:1", "proxy": "http://a:1"}, None, None),
    ],
)
def test_proxy_of_the_environment_is_found(
    environ: dict[str, str], for_http: str | None, for_https: str | None
) -> None:
    assert find_proxy("http://host/v2", environ) == for_http
    assert find_proxy("https://host/v2", environ) == for_https


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_direct"),
    [
        ("", "a.example.com", False),
        (",, ", "a.example.com", False),
        ("*", "a.example.com", True),
        ("x, *", "a.example.com", True),
        ("example.com", "example.com", True),
        ("example.com", "a.example.com", True),
        (".example.com", "a.example.com", True),
        (".example.com", "example.com", True),
        ("Example.COM", "a.eXample.com", True),
        ("example.com", "notexample.com", False),
        ("a.example.com", "example.com", False),
        ("example.com", "example.com.cn", False),
        ("x, example.com ,y", "example.com", True),
        ("example.com", "example.com:8188", True),
        ("example.com:8188", "example.com:8188", True),
        ("example.com:8188", "example.com:9999", False),
        ("example.com:8188", "example.com", False),
        ("127.0.0.1", "127.0.0.1:8188", True),
        ("localhost,::1", "[::1]:8188", True),
        ("localhost,::1", "[::1]", True),
        ("[::1]", "[::1]:8188", True),
        ("::1", "[::2]", False),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_is_respected(name: str, no_proxy: str, host: str, is_direct: bool) -> None:
    environ = {"all_proxy": "http://proxy:1", name: no_proxy}
    assert find_proxy(f"https://{host}/v2", environ) == (None if is_direct else "http://proxy:1")


def test_lower_case_no_proxy_wins() -> None:
    environ = {"all_proxy": "http://proxy:1", "no_proxy": "x", "NO_PROXY": "*"}
    assert find_proxy("https://host", environ) == "http://proxy:1"


@pytest.mark.parametrize("text", ["socks5://h:1", "socks5h://h:1", "socks4://h:1", "socks://h:1"])
def test_socks_proxy_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(ConfigError, match="aiohttp-socks"):
        read_proxy(text)


@pytest.mark.parametrize("text", ["", "http://", "ftp://h:1", "http://[::1", "h:x", "http://h:0"])
def test_what_is_no_proxy_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^proxy: expected something like http://host:port$"):
        read_proxy(text)


def test_proxy_that_is_not_used_is_not_checked() -> None:
    environ = {"all_proxy": "socks5://h:1", "no_proxy": "host"}
    assert find_proxy("https://host", environ) is None


def test_password_of_a_proxy_is_not_shown() -> None:
    for scheme in ("socks5", "ftp"):
        with pytest.raises(ConfigError) as caught:
            find_proxy("https://host", {"all_proxy": f"{scheme}://u:{SECRET}@h:1"})
        assert "ALTAK" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://qianfan.baidubce.com/v2/chat?x=1#y", "https://qianfan.baidubce.com"),
        ("HTTP://Example.COM:8080/", "http://example.com:8080"),
        ("https://[::1]:443", "https://[::1]:443"),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, expected: str) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize("url", ["", "/v2", "ftp://a.cn", "https://", "http://a:b", "data:x"])
def test_what_is_no_address_has_no_origin(url: str) -> None:
    with pytest.raises(ConfigError, match="an http or https address, got "):
        origin(url)
