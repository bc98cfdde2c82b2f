"""Plans: the stored list of the images of a job, and its partitions."""
