"""Which addresses in the messages of strangers lead to the internet, and which inside."""

import pytest

from ernie_async import ConfigError, ImagePart, ImageURL, VideoPart, VideoURL, user
from ernie_async.sansio.gateway_ask import AskRules, read_ask
from ernie_async.sansio.media_hosts import check_media, is_public

PUBLIC = [
    "https://example.com/a.png",
    "http://example.com:8080/a.png?x=1",
    "https://图片.example.cn/猫.png",
    "https://8.8.8.8/a.png",
    "https://[2606:4700::1111]/a.png",
    "https://localhost.example.com/a.png",
    "https://10.example.com/a.png",
    "https://example.com./a.png",
]

INSIDE = [
    "http://127.0.0.1/a.png",
    "http://127.1/a.png",
    "http://2130706433/a.png",
    "http://0x7f000001/a.png",
    "http://0177.0.0.1/a.png",
    "http://1.2.3.4.5/a.png",
    "http://0/a.png",
    "http://10.0.0.8/a.png",
    "http://172.16.3.4/a.png",
    "http://192.168.1.1/a.png",
    "http://100.64.0.1/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://224.0.0.1/a.png",
    "http://255.255.255.255/a.png",
    "http://[::1]/a.png",
    "http://[::]/a.png",
    "http://[fe80::1]/a.png",
    "http://[fd00::1]/a.png",
    "http://[::ffff:127.0.0.1]/a.png",
    "http://[64:ff9b::7f00:1]/a.png",
    "http://[2002:7f00:1::]/a.png",
    "http://localhost/a.png",
    "http://LOCALHOST./a.png",
    "http://a.localhost/a.png",
    "http://db.internal/a.png",
    "http://printer.local/a.png",
    "http://redis/a.png",
    "http://１２７.0.0.1/a.png",
    "http://127。0。0。1/a.png",
    "http://ⓛocalhost/a.png",
    "http://127.0.0.1\\@example.com/a.png",
    "http://example.com@127.0.0.1/a.png",
    "http://user:word@example.com/a.png",
    "http://127.0.0.1%2f@example.com/",
    "http://exa\tmple.com/a.png",
    "http:///a.png",
    "http://[::1/a.png",
    "ftp://example.com/a.png",
    "file:///etc/passwd",
    "gopher://example.com/",
]


@pytest.mark.parametrize("url", PUBLIC)
def test_hosts_of_the_internet_are_public(url: str) -> None:
    assert is_public(url)


@pytest.mark.parametrize("url", INSIDE)
def test_hosts_inside_are_not_in_whatever_form(url: str) -> None:
    assert not is_public(url)


def test_a_host_can_be_allowed_by_name() -> None:
    assert is_public("http://minio:9000/a.png", {"minio"})
    assert not is_public("http://redis:6379/", {"minio"})
    assert not is_public("ftp://minio/a.png", {"minio"})


def test_pictures_and_videos_are_looked_at_and_data_is_let_through() -> None:
    picture = ImagePart(image_url=ImageURL(url="http://169.254.169.254/"))
    video = VideoPart(video_url=VideoURL(url="http://10.0.0.1/a.mp4"))
    check_media([user("http://127.0.0.1/ is a text"), user(["看", _data()])])
    with pytest.raises(ConfigError, match=r"^messages\[1\].content\[1\]: expected a picture"):
        check_media([user("hi"), user(["看", picture])])
    with pytest.raises(ConfigError, match=r"^messages\[0\].content\[0\]"):
        check_media([user([video])])


def _data() -> ImagePart:
    return ImagePart(image_url=ImageURL(url="data:image/png;base64,QUJD"))


def test_a_gateway_refuses_them() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://minio:9000/a.png"}}
    told = {"messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(ConfigError, match="on a public host"):
        read_ask(told, AskRules(), model="m")
    assert read_ask(told, AskRules(media_hosts=("minio",)), model="m").request.messages
