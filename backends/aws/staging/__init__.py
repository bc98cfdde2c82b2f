"""Files that the nodes of a cluster need: built here, stored in the bucket."""
