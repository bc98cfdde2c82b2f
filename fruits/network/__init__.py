"""The neural network: known backbones, their weights, building and running them."""
