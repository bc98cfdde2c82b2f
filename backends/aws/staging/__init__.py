"""Files that the nodes of a cluster need: built on this machine, stored in the bucket."""
