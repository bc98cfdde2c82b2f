"""Inputs of the scenarios: images, generated features and generated object-store keys."""
