"""Self-contained HTML pages: one style, tables, bars and SVG charts; no script, no request."""
