"""What two languages on one site need: a tree of pages for each, and a switch between two halves.

`zh/x.md` is the Chinese half of `x.md`. A page without another half switches to the start of the
other language.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
CHINESE = "zh/"
NAMES = {"en": "English", "zh": "中文"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The changelog stands at the top of the repository, and is a page here."""
    files.append(File.generated(config, "changelog.md", abs_src_path=str(CHANGELOG)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """No arrow leads from the last page of one language to the first of the other."""
    for page in nav.pages:
        following = page.next_page
        if following is not None and is_chinese(page) != is_chinese(following):
            page.next_page = following.previous_page = None
    return nav


def on_page_context(
    context: dict[str, object], page: Page, config: MkDocsConfig, nav: Navigation
) -> dict[str, object]:
    """Each page sees the tree, the words and the switch of its language."""
    language = "zh" if is_chinese(page) else "en"
    pages = {other.file.src_uri: other for other in nav.pages}
    own = page.file.src_uri.removeprefix(CHINESE)
    halves = {"en": pages.get(own, pages["index.md"])}
    halves["zh"] = pages.get(CHINESE + own, pages[f"{CHINESE}index.md"])
    config.extra["alternate"] = [
        {"name": NAMES[code], "link": half.url or ".", "lang": code}
        for code, half in halves.items()
    ]
    config.theme["language"] = language
    (chinese,) = (item for item in nav.items if isinstance(item, Section) and item.title == "中文")
    items = chinese.children if language == "zh" else [i for i in nav.items if i is not chinese]
    context["nav"] = Navigation(items, [p for p in nav.pages if is_chinese(p) == is_chinese(page)])
    return context


def is_chinese(page: Page) -> bool:
    """Whether the page is written in Chinese."""
    return page.file.src_uri.startswith(CHINESE)
