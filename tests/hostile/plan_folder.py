"""Plan the images of a folder in a child process: ``python -m tests.hostile.plan_folder IMAGES PLAN``."""

from __future__ import annotations

import sys

from fruits.images.listing import Listing
from fruits.plan.pages import make_plan
from fruits.storage.folder import Folder
from tests.hostile.measure import print_measurements

if __name__ == "__main__":
    images, plan = sys.argv[1:]
    print_measurements([("plan", lambda: make_plan(Listing(images), 1024, Folder(plan)).images)])
