"""Tar archives of images: members, labelled samples, shards, and packing."""
