"""Jobs: from the list of images to the report; status, verification and comparison of outputs."""
