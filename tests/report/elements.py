"""What the tests of pages read: elements with their attributes, each closed by its own end tag."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["Elements"]

VOID = {"meta", "link", "img", "br", "input"}


class Elements(HTMLParser):
    """Parses a page at once; an element that is not closed by its own end tag fails the test."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [
            attributes for name, attributes in self.elements if name == tag and wanted.items() <= attributes.items()
        ]
