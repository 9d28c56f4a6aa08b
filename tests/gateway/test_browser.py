"""The page in a real browser: it writes, breaks, goes on, stops, and believes no HTML."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ernie_async import ContentFilter
from ernie_async.testing import MockErnie, reply, stall
from tests.waiting import until

from .conftest import Serve
from .cutting import CuttingProxy

CHROMIUM = Path("/usr/bin/chromium")

playwright_api = pytest.importorskip("playwright.async_api", reason="pip install playwright")
if not CHROMIUM.exists():
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)

pytestmark = [pytest.mark.real, pytest.mark.anyio]

PICTURES = os.environ.get("ERNIE_PICTURES")
"""Where to put screenshots, such as docs/images; nowhere if it is not set."""

TEXT = "量子纠缠是两个粒子共享同一个状态的现象：测量其中一个，就知道另一个的结果。"
LONG = f"**量子纠缠**\n\n{TEXT}\n\n```\nx = 1 < 2\n```\n\n" + TEXT * 3


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    async with playwright_api.async_playwright() as p:
        browser = await p.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()


async def open_page(browser: Any, url: str, **options: Any) -> tuple[Any, list[str]]:
    page = await browser.new_page(locale="zh-CN", **options)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda told: (
            problems.append(told.text)
            if told.type == "error"
            and "Failed to load" not in told.text
            and "ERR_" not in told.text
            and "WebSocket" not in told.text
            else None
        ),
    )
    await page.goto(url)
    return page, problems


async def ask(page: Any, text: str, way: str) -> None:
    await page.select_option("#way", way)
    await page.fill("#ask", text)
    await page.keyboard.press("Enter")


async def becomes(page: Any, expression: str) -> None:
    """Wait for something in the page; the page's policy forbids Playwright's own way."""
    async with asyncio.timeout(15):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.03)


async def picture(page: Any, name: str) -> None:
    if PICTURES:
        await page.screenshot(path=str(Path(PICTURES) / name))


def shown(page: Any) -> Any:
    return page.locator("article .text").last


@pytest.mark.parametrize("way", ["sse", "ws"])
async def test_text_appears_bit_by_bit_and_a_break_loses_nothing(
    serve: Serve, upstream: MockErnie, browser: Any, way: str
) -> None:
    upstream.script(reply(LONG, reasoning="先想一想。", chunk_chars=1, chunk_ms=12))
    async with serve() as gateway, CuttingProxy(gateway.port) as proxy:
        page, problems = await open_page(browser, proxy.url)
        await ask(page, "什么是量子纠缠？", way)
        lengths = set()
        await until(lambda: gateway.hub.n_viewers)
        for _ in range(4):
            await asyncio.sleep(0.15)
            lengths.add(len(await shown(page).inner_text()))
        assert len(lengths) > 2
        if way == "sse":
            await picture(page, "gateway-writing.png")
        await proxy.cut()
        await page.wait_for_selector("[data-note=lost]", timeout=5000)
        await page.wait_for_selector("[data-note=resumed]", timeout=10000)
        await page.wait_for_selector("article:not(.writing) .text", timeout=15000)
        await becomes(page, "!document.querySelector('.writing')")
        text = await shown(page).inner_text()
        assert "".join(text.split()) == "".join(LONG.replace("**", "").replace("```", "").split())
        assert await page.locator("article strong").inner_text() == "量子纠缠"
        assert "先想一想。" in await page.locator("details").text_content()
        assert not await page.locator("details").get_attribute("open")
        assert upstream.requests_made - 1 == 1  # the list of models, and one chat
        assert problems == []
        if way == "sse":
            await picture(page, "gateway-resumed.png")
        await page.close()


@pytest.mark.parametrize("way", ["sse", "ws"])
async def test_stop_works(serve: Serve, upstream: MockErnie, browser: Any, way: str) -> None:
    upstream.script(stall(after_chunks=3))
    async with serve() as gateway:
        page, problems = await open_page(browser, gateway.url)
        await ask(page, "hi", way)
        await page.wait_for_selector("#stop:visible")
        await until(lambda: gateway.hub.n_viewers)
        await page.click("#stop")
        await page.wait_for_selector("[data-note=cancelled]", timeout=3000)
        await until(lambda: gateway.ended)
        assert gateway.ended[0].ending == "cancelled"
        assert await page.locator("#send").is_visible()
        assert problems == []
        await page.close()


async def test_markup_of_a_model_is_text(serve: Serve, upstream: MockErnie, browser: Any) -> None:
    evil = (
        "<script>window.evil = 1</script><img src=x onerror='window.evil = 2'>"
        "**<b onclick=alert(1)>b</b>** `<i>i</i>` [x](javascript:window.evil=3)"
    )
    upstream.script(reply(evil))
    async with serve() as gateway:
        page, problems = await open_page(browser, gateway.url)
        await ask(page, evil, "sse")
        await page.wait_for_selector("[data-note], article:not(.writing) .text")
        await until(lambda: gateway.ended)
        await becomes(page, "!document.querySelector('.writing')")
        assert "<script>window.evil = 1</script>" in await shown(page).inner_text()
        found = await page.evaluate(
            "[window.evil, document.querySelectorAll('article script, article img, article b, "
            "article a').length]"
        )
        assert found == [None, 0]
        # Should it ever become markup, the policy is the second wall.
        await page.evaluate(
            "const s = document.createElement('script'); s.textContent = 'window.evil = 4';"
            "document.body.append(s)"
        )
        assert await page.evaluate("window.evil") is None
        assert len(problems) == 1
        assert "Content Security Policy" in problems[0]
        await page.close()


@pytest.mark.parametrize(
    ("action", "left"),
    [("mask", "这里有一个***，还有别的。"), ("block", "这里有一个")],
)
async def test_retraction_is_shown(
    serve: Serve, upstream: MockErnie, browser: Any, action: str, left: str
) -> None:
    words = ContentFilter.from_terms(["敏感词"], action=action, mode="live")
    upstream.script(reply("这里有一个敏感词，还有别的。", chunk_ms=60))
    async with serve(content_filter=words) as gateway:
        page, problems = await open_page(browser, gateway.url)
        await ask(page, "hi", "sse")
        await page.wait_for_selector("[data-note=retracted]", timeout=5000)
        await becomes(page, "!document.querySelector('.writing')")
        assert await shown(page).inner_text() == left
        assert problems == []
        if action == "block":
            await picture(page, "gateway-retracted.png")
        await page.close()


async def test_phone_dark_and_keyboard(serve: Serve, upstream: MockErnie, browser: Any) -> None:
    upstream.script(reply(LONG))
    async with serve() as gateway:
        page, problems = await open_page(
            browser, gateway.url, viewport={"width": 360, "height": 640}, color_scheme="dark"
        )
        await page.locator("#ask").focus()
        await page.keyboard.type("什么是量子纠缠？")
        await page.keyboard.press("Enter")
        await becomes(page, "document.querySelector('#spoken').textContent.length > 20")
        assert await page.evaluate("document.activeElement.id") == "ask"
        wide = await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert wide
        unnamed = await page.evaluate(
            "[...document.querySelectorAll('button, input, select, textarea')].filter(one => "
            "!one.textContent.trim() && !one.getAttribute('aria-label')).length"
        )
        assert unnamed == 0
        assert await page.evaluate("document.documentElement.lang") == "zh-CN"
        await page.click("#language")
        assert await page.locator("h1").inner_text() == "Chat"
        await picture(page, "gateway-phone.png")
        assert problems == []
        await page.close()
