"""Pages as tests read them: tags and text, and what a page would load."""

from __future__ import annotations

import re
from html.parser import HTMLParser

__all__ = ["Page", "requests"]


class Page(HTMLParser):
    """The tags, attributes and text of a page; raises an error if tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data.replace("\xa0", " ")


def requests(html: str) -> list[str]:
    """Return what a page would load or run; its policy must forbid it too."""
    page = Page(html)
    policy = next(attributes["content"] or "" for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")
    found = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "xlink:href")
    ]
    handlers = [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    scripts = [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "form")]
    loads = re.findall(r"url\(|@import", html)
    return [link for link in found if not link.startswith("data:")] + handlers + scripts + loads
