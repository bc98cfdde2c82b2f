"""The HTTP interface: endpoints, the page, and what a request may do."""
