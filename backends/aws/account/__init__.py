"""The AWS account: clients, tags, policies, network, and the resources of jobs and clusters."""
