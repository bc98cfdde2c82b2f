"""The frame of a page, and its tables, bars, tiles and pictures. All text from outside passes through :func:`text`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from fruits.text import printable, shortened

STYLE = files("fruits.pages").joinpath("style.css").read_text("utf-8")

PICTURE_BYTES = 20_000  # of a picture, which has 1 to 3 kB unless a recogniser comes from someone else
TEXT_CHARACTERS = 80  # of a name on a page: thousands of hostile names stay below the limit of a page
Table = Iterable[Sequence[str]]


def document(title: str, sections: Iterable[str]) -> str:
    """Return a page that loads nothing: its policy allows inline styles and pictures in the page alone.

    Parameters
    ----------
    title : str
        Plain text.
    sections : iterable of str
        HTML.
    """
    content = "".join(sections).replace(" %", "\u00a0%")  # a narrow cell breaks no figure before its unit
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline';"
        'img-src data:">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title>'
        f"<style>\n{STYLE}</style></head><body><main>{content}</main></body></html>\n"
    )


def text(value: str, most: int = TEXT_CHARACTERS) -> str:
    """Return a text as HTML: control characters and markup escaped, truncated in the middle."""
    return escape(shortened(printable(shortened(value, most)), most))


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return a fraction in per cent; ``none`` for None."""
    return "none" if fraction is None else f"{fraction * 100:.{digits}f} %"


def tiles(values: Iterable[tuple[str, str, str]]) -> str:
    """Return large figures: value, name and note of each, as HTML."""
    items = (f'<li><b>{value}</b>{name}<br><span class="soft">{note}</span></li>' for value, name, note in values)
    return f'<ul class="tiles">{"".join(items)}</ul>'


def table(header: Iterable[str], rows: Table) -> str:
    """Return a table of HTML cells; the first column is left-aligned, and long tables scroll."""
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, str]) -> str:
    """Return a table of names and values, both plain text."""
    body = "".join(f"<tr><td>{text(name)}</td><td>{text(value, 200)}</td></tr>" for name, value in values.items())
    return f'<div class="scroll" tabindex="0"><table class="facts"><tbody>{body}</tbody></table></div>'


def bars(values: Sequence[tuple[str, float, str]]) -> str:
    """Return a bar for each name (plain text), as long as its value, with the value as it is shown (HTML)."""
    longest = max((value for _, value, _ in values), default=0) or 1
    rows = (
        f'<b>{text(name)}</b><i style="width:{100 * value / longest:.1f}%"></i><span>{shown}</span>'
        for name, value, shown in values
    )
    return f'<div class="bars">{"".join(rows)}</div>'


def pair(*pictures: bytes | None) -> str:
    """Return pictures side by side; missing ones, and ones of more than 20 kB, are left out."""
    images = (f'<img alt="" src="{data_uri(data)}">' for data in pictures if data is not None and _is_small(data))
    return f'<span class="pair">{"".join(images)}</span>'


def wall(pictures: Mapping[str, bytes]) -> str:
    """Return pictures in lines, with their names, plain text, as tooltips; ones of more than 20 kB are left out."""
    images = (
        f'<img alt="{text(name)}" title="{text(name)}" src="{data_uri(data)}">'
        for name, data in pictures.items()
        if _is_small(data)
    )
    return f'<p class="pair wall">{"".join(images)}</p>'


def _is_small(picture: bytes) -> bool:
    return len(picture) <= PICTURE_BYTES


def data_uri(picture: bytes) -> str:
    """Return a JPEG as the address of its own content."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
