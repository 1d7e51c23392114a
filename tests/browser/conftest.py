"""A browser for the tests of this folder: the system's chromium, without a display, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
WIDTHS = (1280, 390)
"""A desk and a telephone, in pixels of the style sheet."""


@dataclass
class Window:
    """A page that was opened, and what it did that it should not.

    Attributes:
        page: Playwright's page.
        errors: what it wrote to the console as an error, and exceptions that nobody caught.
        left: addresses it asked for that are neither its own file nor its own server's; none is
            answered.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def open(self, address: str | Path) -> Page:
        """Open a file, or the page of a server, and return when it has loaded."""
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        own = _home(url)

        def answer(route: Route) -> None:
            if _home(route.request.url) in (own, "data:", "blob:"):
                route.continue_()
            else:
                self.left.append(route.request.url)
                route.abort()

        self.page.route("**/*", answer)
        self.page.on("websocket", lambda socket: self.left.append(socket.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )
        self.page.goto(url)
        return self.page

    @property
    def overhang(self) -> int:
        """By how many pixels the page is wider than the window."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return max(0, int(wide))


NewWindow = Callable[[int], Window]
"""What the fixture `new_window` is: it opens windows of some width."""


def _home(url: str) -> str:
    """Return what a page may ask: of a file its own address, of a server all of its origin."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return f"file:{parts.path}"
    return f"{parts.scheme}:{parts.netloc}"


# Of a file and no session: its event loop would be in the way of tests with one of their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright, a package of the extra `dev`, is not installed"
    )
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"there is no browser here: none of {', '.join(PROGRAMS)} is on the path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    """How wide the window is."""
    return int(request.param)


@pytest.fixture
def new_window(chromium: Browser) -> Iterator[Callable[[int], Window]]:
    """Open windows of some width, each without a memory of its own; they close with the test."""
    contexts = []

    def opened(width: int = WIDTHS[0]) -> Window:
        context = chromium.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        return Window(context.new_page())

    yield opened
    for context in contexts:
        context.close()
