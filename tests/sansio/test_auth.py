"""Which credential is sent, which is refused, and that none is shown."""

import copy
import pickle
import traceback
from collections.abc import Callable

import pytest

from ernie_async.errors import ConfigError
from ernie_async.sansio.auth import ApiKey, IamKeys, MaskedStr, from_env

KEY = "bce-v3/ALTAK-4MzyLzJQ1kZcPfYqSoZ3X/1f2e3d4c5b6a79880716253443526170f1e2d3c4"
OTHER_KEY = "bce-v3/ALTAK-other/0000"
V1_TOKEN = "24.6c5e1ff107f0e8bcef8c46d3424a0e78.2592000.1485516651.282335-8574074"
ACCESS_KEY_ID = "ALTAK4MzyLzJQ1kZcPfYqSoZ3X"


@pytest.mark.parametrize(
    "text",
    [KEY, f"Bearer {KEY}", f" {KEY}\n", f"\n Bearer  {KEY} ", "sk-local", "x", "EMPTY"],
)
def test_key_becomes_the_header(text: str) -> None:
    expected = KEY if KEY in text else text
    assert str.__str__(ApiKey(text).header()) == f"Bearer {expected}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "got none"),
        ("  ", "got none"),
        ("Bearer", "got none"),
        ("Bearer ", "got none"),
        (f"{KEY} x", "without blanks"),
        (KEY.replace("/", "\n"), "line break"),
        (KEY.replace("-", "－"), "full-width"),
        (KEY + "\x7f", "printable"),
        (V1_TOKEN, "access_token of the V1 API"),
        (f"Bearer {V1_TOKEN}", "access_token of the V1 API"),
        (ACCESS_KEY_ID, "access key id"),
    ],
)
def test_wrong_kind_of_key_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ApiKey(text)


def test_refusal_names_where_the_key_came_from() -> None:
    with pytest.raises(ConfigError, match=r"^API key \(QIANFAN_API_KEY\): "):
        from_env({"QIANFAN_API_KEY": V1_TOKEN})


def test_keys_are_compared_by_value() -> None:
    assert ApiKey(KEY) == ApiKey(f"Bearer {KEY}", source="elsewhere") != ApiKey(OTHER_KEY)
    assert len({ApiKey(KEY), ApiKey(KEY), ApiKey(OTHER_KEY)}) == 2
    assert ApiKey(KEY) != KEY


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda k: pickle.loads(pickle.dumps(k))]
)
def test_key_can_be_copied_and_pickled(again: Callable[[ApiKey], ApiKey]) -> None:
    key = again(ApiKey(KEY, source="QIANFAN_API_KEY"))
    assert key == ApiKey(KEY)
    assert key.source == "QIANFAN_API_KEY"
    assert KEY not in repr(key)


@pytest.mark.parametrize(
    "shown",
    [
        repr(ApiKey(KEY)),
        str(ApiKey(KEY)),
        f"{ApiKey(KEY)}",
        repr([ApiKey(KEY)]),
        repr(ApiKey(KEY).header()),
        repr({"Authorization": ApiKey(KEY).header()}),
        f"{ApiKey(KEY).header()!r}",
        repr(pickle.loads(pickle.dumps(ApiKey(KEY).header()))),
    ],
)
def test_key_is_never_shown(shown: str) -> None:
    assert "***" in shown
    assert "ALTAK" not in shown


def test_masked_text_is_the_text_when_sent() -> None:
    text = MaskedStr("abc")
    assert (text, len(text), text.encode()) == ("abc", 3, b"abc")


@pytest.mark.parametrize(
    "fail",
    [
        lambda secrets: ApiKey(secrets[0]),
        lambda secrets: from_env({"QIANFAN_API_KEY": secrets[0]}),
        lambda secrets: from_env({"QIANFAN_AK": secrets[0], "QIANFAN_SK": secrets[0]}),
        lambda secrets: from_env({"QIANFAN_ACCESS_KEY": secrets[0]}),
        lambda secrets: IamKeys(secrets[0], secrets[0]),
        lambda secrets: IamKeys("a", "b", session_token=secrets[0]),
    ],
)
@pytest.mark.parametrize("secret", [f"{KEY} x", f"Bearer {KEY}\t\x01", f"{KEY}－"])
def test_traceback_that_shows_every_local_shows_no_key(
    fail: Callable[[list[str]], object], secret: str
) -> None:
    # The caller's own frame cannot be helped, so this one is left out.
    with pytest.raises(ConfigError) as caught:
        fail([secret])
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next.tb_next)
    shown = "".join(
        traceback.TracebackException.from_exception(error, capture_locals=True).format()
    )
    assert "sansio" in shown
    assert "ALTAK-4Mz" not in shown


@pytest.mark.parametrize(
    "name", ["QIANFAN_API_KEY", "QIANFAN_BEARER_TOKEN", "BAIDU_QIANFAN_API_KEY", "WENXIN_API_KEY"]
)
def test_key_is_found_under_every_name_in_use(name: str) -> None:
    key = from_env({"PATH": "/bin", name: f" {KEY}\n"})
    assert key == ApiKey(KEY)
    assert key is not None
    assert key.source == name


def test_first_name_wins() -> None:
    environ = {"QIANFAN_BEARER_TOKEN": OTHER_KEY, "QIANFAN_API_KEY": KEY, "WENXIN_API_KEY": "x"}
    assert from_env(environ) == ApiKey(KEY)


def test_empty_variable_counts_as_none() -> None:
    assert from_env({"QIANFAN_API_KEY": " ", "QIANFAN_BEARER_TOKEN": KEY}) == ApiKey(KEY)
    assert from_env({"QIANFAN_API_KEY": "", "QIANFAN_SK": " "}) is None
    assert from_env({}) is None


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"QIANFAN_ACCESS_KEY": "a"}, "QIANFAN_SECRET_KEY is missing"),
        ({"QIANFAN_SECRET_KEY": "b"}, "QIANFAN_ACCESS_KEY is missing"),
        ({"QIANFAN_AK": "a", "QIANFAN_SK": "b"}, "V1 API"),
        ({"QIANFAN_ACCESS_TOKEN": V1_TOKEN}, "V1 API"),
    ],
)
def test_credentials_of_another_kind_alone_are_explained(environ: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        from_env(environ)
    assert "QIANFAN_API_KEY" in str(caught.value)
    assert from_env({**environ, "WENXIN_API_KEY": KEY}) == ApiKey(KEY)


# IAM keys

PAIR = {"QIANFAN_ACCESS_KEY": f" {ACCESS_KEY_ID}", "QIANFAN_SECRET_KEY": "s3cret\n"}


def test_pair_of_iam_keys_is_found_where_there_is_no_api_key() -> None:
    keys = from_env({**PAIR, "QIANFAN_AK": "a"})
    assert keys == IamKeys(ACCESS_KEY_ID, "s3cret")
    assert keys is not None
    assert keys.source == "QIANFAN_ACCESS_KEY and QIANFAN_SECRET_KEY"
    assert from_env({**PAIR, "WENXIN_API_KEY": KEY}) == ApiKey(KEY)


def test_iam_url_of_the_environment_goes_with_its_pair() -> None:
    keys = from_env({**PAIR, "QIANFAN_IAM_BASE_URL": "http://127.0.0.1:1/"})
    assert isinstance(keys, IamKeys)
    assert keys.iam_url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: IamKeys("", "b"), "access key is missing"),
        (lambda: IamKeys("a", " "), "secret key is missing"),
        (lambda: IamKeys(KEY, "b"), "this is an API key"),
        (lambda: IamKeys("a", "b c"), "without blanks"),
        (lambda: IamKeys("a", "b", session_token="é"), "session token"),
        (lambda: IamKeys("a", "b", token_seconds=299), "from 300 to 2592000"),
        (lambda: IamKeys("a", "b", token_seconds=1e4), "token_seconds"),  # type: ignore[arg-type]
        (lambda: IamKeys("a", "b", iam_url="iam.example.com"), "iam_url"),
        (lambda: IamKeys("a", "b", iam_url="https://u:p@iam.example.com"), "iam_url"),
    ],
)
def test_wrong_pair_is_refused_with_its_reason(make: Callable[[], IamKeys], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make()


def test_iam_keys_are_values_and_never_shown() -> None:
    keys = IamKeys("access-planted", "secret-planted", session_token="sts-planted")
    assert keys == pickle.loads(pickle.dumps(keys)) == copy.deepcopy(keys)
    assert keys != IamKeys("access-planted", "secret-planted")
    assert len({keys, copy.copy(keys)}) == 1
    shown = f"{keys!r} {keys} {keys.secret_key!r} {[keys.access_key]} {(keys.session_token,)}"
    assert "planted" not in shown


@pytest.mark.parametrize(
    ("key", "is_baidu"), [(KEY, True), (f"Bearer {KEY}", True), ("sk-x", False)]
)
def test_baidus_keys_are_told_by_their_form(key: str, is_baidu: bool) -> None:
    assert ApiKey(key).is_baidu is is_baidu
