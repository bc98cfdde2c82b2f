"""The frame of a page, and its tables, bars, tiles and pictures. All text from outside passes through :func:`text`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from fruits.text import printable, shortened

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f23;--soft:#59636e;--paper:#fff;--panel:#f5f7f9;--rule:#d5dbe1;--mark:#0a66c2;
--bar:#7fb2e5;--ideal:#b4470f;--c0:#0072b2;--c1:#d55e00;--c2:#008a64;--c3:#b8558f;--c4:#b07a00;--c5:#2f9fd8;--c6:#7d3fb0}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e8ebee;--soft:#a3adb8;--paper:#14181c;--panel:#1e242a;
--rule:#39424c;--mark:#6cb0f5;--bar:#3f78b0;--ideal:#f0a070;--c0:#5aa9e6;--c1:#ff8b4d;--c2:#3fc79a;--c3:#e48fc0;
--c4:#e6b84c;--c5:#8fd3ff;--c6:#b98aec}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:60rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--rule)}
h3{font-size:1rem;margin:1.25rem 0 .25rem}
p{max-width:44rem}.soft,figcaption{color:var(--soft);font-size:.875rem}
code{font:.9em ui-monospace,monospace;background:var(--panel);padding:.1em .3em;border-radius:.25rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:.75rem;margin:1rem 0;padding:0}
.tiles li{list-style:none;background:var(--panel);border:1px solid var(--rule);border-radius:.5rem;padding:.75rem}
.tiles b{display:block;font-size:1.6rem;line-height:1.2}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr));gap:1rem}
figure{margin:0}svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:12px}
.map svg{background:var(--panel);border:1px solid var(--rule);border-radius:.5rem}
.legend{display:flex;flex-wrap:wrap;gap:.25rem .9rem;margin:.4rem 0;padding:0;font-size:.875rem}
.legend li{list-style:none}.legend i{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.35em}
.grid{stroke:var(--rule)}.bar{fill:var(--bar)}.ideal{stroke:var(--ideal);stroke-width:2;stroke-dasharray:5 4}
.line{fill:none;stroke:var(--mark);stroke-width:2}.dot{fill:var(--mark)}.area{fill:var(--bar);opacity:.45}
.scroll{max-height:28rem;overflow:auto;border:1px solid var(--rule);border-radius:.5rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.35rem .4rem;text-align:right;border-bottom:1px solid var(--rule)}
tr:last-child>td{border-bottom:0}
th{position:sticky;top:0;background:var(--panel);vertical-align:bottom;overflow-wrap:normal}
th:first-child,td:first-child{text-align:left;min-width:6rem}
.facts td:nth-child(2),.left{text-align:left}.left .pair{justify-content:start}
.bars{display:grid;grid-template-columns:minmax(5rem,auto) 1fr auto;gap:.2rem .6rem;align-items:center;font-size:.9rem;
margin:.5rem 0}
.bars b{font-weight:400;max-width:16rem}.bars i{height:.9rem;min-width:1px;background:var(--bar);border-radius:.2rem}
.bars span{text-align:right;font-variant-numeric:tabular-nums}
.pair{display:flex;flex-wrap:wrap;gap:.25rem;justify-content:end}.wall{justify-content:start;max-width:none}
.pair img{width:48px;height:48px;object-fit:contain;background:var(--panel);border-radius:.25rem}
:focus-visible{outline:3px solid var(--mark)}
@media(max-width:30rem){body{padding:.75rem}.bars b{max-width:9rem}.pair img{width:40px;height:40px}}
@media print{body{max-width:none;padding:0;font-size:11pt}.scroll{max-height:none;overflow:visible}th{position:static}
.map svg{max-width:14cm}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
figure,tr,.tiles li,.bars{break-inside:avoid}h2,h3,h2+p{break-after:avoid}}
"""

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
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline';"
        'img-src data:">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
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
