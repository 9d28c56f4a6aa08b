"""The commands besides `chat`: what they print, what they save, and how they refuse."""

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cyclopts")

from ernie_async import cli_endpoints
from ernie_async.cli import main
from ernie_async.testing import MockErnie, raw, refuse
from ernie_async.types import ModelCard


@pytest.fixture
def server() -> Iterator[MockErnie]:
    with MockErnie() as server:
        yield server


@pytest.fixture
def call(monkeypatch, capsys, server):
    for name in [name for name in os.environ if name.startswith("QIANFAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "*")

    def call(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main([*arguments, "--base-url", server.base_url])
        return (code, *capsys.readouterr())

    return call


def test_embed_prints_a_vector_a_line(call, server) -> None:
    code, out, err = call("embed", "你好", "世界", "--model", "m", "--batch-size", "1")
    assert (code, err) == (0, "")
    assert [len(json.loads(line)) for line in out.splitlines()] == [384, 384]
    assert [seen.json["model"] for seen in server.requests] == ["m", "m"]


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_embed_reads_lines(call, server, arguments) -> None:
    code, out, _ = call("embed", *arguments, "--json", stdin="a\n\nb\n")
    assert (code, len(json.loads(out)["data"])) == (0, 2)
    assert server.requests[0].json["input"] == ["a", "b"]


def test_rerank_prints_the_best_first(call) -> None:
    code, out, _ = call("rerank", "上海天气", "北京美食", "上海气候")
    assert (code, out) == (0, "0.7500\t上海气候\n0.0000\t北京美食\n")
    code, out, _ = call("rerank", "a", "--top-n", "1", "--json", stdin="b\na\n")
    assert json.loads(out)["results"][0]["document"] == "a"


def test_image_is_saved_and_nothing_is_overwritten(call, server, tmp_path) -> None:
    target = tmp_path / "dog.png"
    assert call("image", "小狗", "-o", str(target))[:2] == (0, f"{target}\n")
    assert target.read_bytes().startswith(b"\x89PNG")
    n_requests = len(server.requests)
    code, out, err = call("image", "小狗", "-o", str(target))
    assert (code, out) == (2, "")
    assert "exists; --overwrite replaces it" in err
    assert call("image", "小狗", "-o", str(tmp_path / "no" / "a.png"))[0] == 2
    assert len(server.requests) == n_requests
    assert call("image", "小猫", "-o", str(target), "--overwrite")[0] == 0


def test_several_images_have_numbers(call, tmp_path) -> None:
    code, out, _ = call("image", "a", "--n", "2", "-o", str(tmp_path / "a.png"))
    assert code == 0
    assert [Path(line).name for line in out.splitlines()] == ["a-1.png", "a-2.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.png", "a-2.png"]


def test_image_as_json_saves_nothing(call, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("image", "a", "--json")
    assert (code, list(json.loads(out)["data"][0])) == (0, ["url"])
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_failed_is_told_and_not_numbered(call, server, tmp_path) -> None:
    url = f"{server.base_url.removesuffix('/v2')}/pictures/00.png"
    body = {"data": [{"task_status": "FAILED"}, {"url": url}]}
    server.script(raw(json.dumps(body).encode()), path="/images/generations")
    code, out, err = call("image", "a", "--n", "2", "-o", str(tmp_path / "a.png"))
    assert (code, out.splitlines()) == (0, [str(tmp_path / "a-1.png")])
    assert "1 of 2 pictures could not be made" in err


def test_files_go_there_and_back(call, tmp_path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(b"{}\n")
    code, out, _ = call("files", "upload", str(source))
    file_id = out.strip()
    assert (code, file_id) == (0, "file-mock000001")
    columns = call("files", "list")[1].rstrip("\n").split("\t")
    assert (columns[0], columns[1], columns[3:]) == (file_id, "3", ["batch", "a.jsonl"])
    assert json.loads(call("files", "list", "--purpose", "vision", "--json")[1]) == []
    assert call("files", "get", file_id)[1] == "{}\n"
    back = tmp_path / "back"
    assert call("files", "get", file_id, "-o", str(back))[1] == f"{back}\n"
    assert back.read_bytes() == b"{}\n"
    assert call("files", "delete", file_id)[0] == 0
    code, _, err = call("files", "delete", file_id)
    assert (code, "file not found" in err) == (1, True)


def test_models_have_columns_at_a_terminal(call, monkeypatch) -> None:
    assert call("models")[1].splitlines()[0] == "ernie-5.1"
    assert json.loads(call("models", "--json")[1])[0]["pricing"]["prompt"] == "0.004"
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    console = cli_endpoints.Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(cli_endpoints, "Console", lambda: console)
    assert call("models")[0] == 0
    for text in ("131,072", "0.004 / 0.012", "embeddings"):
        assert text in screen.getvalue()


@pytest.mark.parametrize(
    ("pricing", "expected"),
    [
        (None, ""),
        ({"prompt": "0.004"}, "0.004 / ?"),
        ({"prompt": [{"price": "0.1"}]}, "by tiers"),
    ],
)
def test_prices_in_words(pricing, expected) -> None:
    assert cli_endpoints.prices(ModelCard(id="m", pricing=pricing)) == expected


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["embed", ""], 2),
        (["embed", "a", "--batch-size", "1.5"], 2),
        (["embed", "a", "--batch-size", "0"], 2),
        (["rerank"], 2),
        (["rerank", "q", "a", "--top-n", "0"], 2),
        (["image", " "], 2),
        (["files", "upload", "nowhere"], 2),
        (["files", "get", "file-0"], 1),
        (["files", "nonsense"], 2),
    ],
)
def test_mistakes_end_with_a_word_and_a_code(call, arguments, code) -> None:
    ended, out, err = call(*arguments)
    assert (ended, out) == (code, "")
    assert err.startswith("ernie-async: ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/embeddings", ["embed", "a"]),
        ("/rerank", ["rerank", "q", "a"]),
        ("/images/generations", ["image", "a", "--json"]),
        ("/files", ["files", "list"]),
        ("/models", ["models"]),
    ],
)
def test_a_refusal_is_explained(call, server, path, arguments) -> None:
    server.script(refuse(403, "account_overdue"), path=path)
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert "account_overdue" in err
