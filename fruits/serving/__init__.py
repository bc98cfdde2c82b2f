"""The online service: recognise images over HTTP, with a page for phones."""
