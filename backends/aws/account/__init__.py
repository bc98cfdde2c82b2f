"""The AWS account: clients, permissions, networks and resources."""
