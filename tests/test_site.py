"""The site of the documentation: built without a warning, nothing from elsewhere, two languages.

Its tools come with the extra `docs`; without them nothing is tested here.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

if any(importlib.util.find_spec(name) is None for name in ("material", "mkdocstrings")):
    pytest.skip("the site's tools are missing: extra docs", allow_module_level=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    command += ["-f", str(DOCS / "site/mkdocs.yml"), "-d", str(folder)]
    # A proxy where nobody listens: whoever wants the network fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


class Tags(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.switch: dict[str, str] = {}
        self.language = ""
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "html":
            self.language = told["lang"]
        if tag == "a" and "hreflang" in told:
            self.switch[told["hreflang"]] = told["href"]
        elif tag == "a":
            self.links.append(told.get("href", ""))
        elif tag in {"link", "script", "img", "iframe", "source", "video", "audio"}:
            self.loads += [told[name] for name in ("href", "src") if name in told]


def page_of(site: Path, source: Path) -> Path:
    name = source.relative_to(DOCS).with_suffix("")
    return site / (name.parent if name.name == "index" else name) / "index.html"


def sources() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def test_each_page_is_built(site: Path) -> None:
    assert [page for page in sources() if not page_of(site, page).exists()] == []
    assert page_of(site, DOCS / "changelog.md").exists()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loads = [load for load in Tags(page).loads if re.match(r"(\w+:)?//", load)]
        assert loads == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", style.read_text("utf-8")), (
            style
        )


def test_each_page_has_its_language_and_a_switch(site: Path) -> None:
    for source in sources():
        page = page_of(site, source)
        tags = Tags(page)
        is_chinese = source.is_relative_to(DOCS / "zh")
        assert tags.language == ("zh" if is_chinese else "en"), source
        targets = {code: (page.parent / link).resolve() for code, link in tags.switch.items()}
        assert targets.keys() == {"en", "zh"}
        assert targets["zh" if is_chinese else "en"] == page.parent.resolve(), source
        other = targets["en" if is_chinese else "zh"] / "index.html"
        assert Tags(other).language == ("en" if is_chinese else "zh"), source


def test_a_half_leads_to_its_other_half(site: Path) -> None:
    page = page_of(site, DOCS / "guides/limits.md")
    other = (page.parent / Tags(page).switch["zh"]).resolve()
    assert other == page_of(site, DOCS / "zh/guides/limits.md").parent.resolve()


# Hands queries to the site's own search, as a browser does, and prints the first place of each.
ASK = """
const fs = require("fs"), vm = require("vm"), [folder, ...queries] = process.argv.slice(1);
const scripts = folder + "/assets/javascripts/workers/";
let told, listen;
const page = {console, addEventListener: (_, f) => listen = f, postMessage: m => told(m)};
page.self = page;
vm.createContext(page);
const script = fs.readdirSync(scripts).find(name => name.endsWith(".js"));
vm.runInContext(fs.readFileSync(scripts + script, "utf8"), page);
const ask = data => new Promise(f => { told = f; listen({data}); });
(async () => {
  const index = JSON.parse(fs.readFileSync(folder + "/search/search_index.json"));
  await ask({type: 0, data: {...index, options: {}}});
  for (const query of queries) {
    const {data} = await ask({type: 2, data: query});
    console.log(data.items.length ? data.items[0][0].location : "nothing");
  }
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no JavaScript here")
def test_search_finds_names_and_chinese(site: Path) -> None:
    wanted = {
        "RetryPolicy": "reference/policies/",
        "hedging": "guides/fallback/",
        "限流": "zh/guides/limits/",
        "断点续传": "zh/guides/resume/",
        "错误码": "zh/errors/",
    }
    command = ["node", "-e", ASK, str(site), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = [place.partition("#")[0] for place in done.stdout.splitlines()]
    assert dict(zip(wanted, found, strict=True)) == wanted


def test_every_public_name_has_its_place(site: Path) -> None:
    import ernie_async

    pages = "".join(page.read_text("utf-8") for page in (site / "reference").rglob("*.html"))
    places = set(re.findall(r'id="(ernie_async\.[\w.]+)"', pages))
    assert sorted({f"ernie_async.{name}" for name in ernie_async.__all__} - places) == []
