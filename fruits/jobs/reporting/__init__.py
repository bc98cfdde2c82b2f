"""The run report: a page about the images, the model and the speed of a finished job, from its stored files."""
