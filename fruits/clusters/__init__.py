"""Clusters: the models of ``cluster.yaml``, its reader, and the selection of the cluster that a job runs on."""
