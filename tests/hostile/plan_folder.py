"""Plan the images of a folder, in a process of its own: ``python -m tests.hostile.plan_folder IMAGES PLAN``."""

from __future__ import annotations

import sys

from fruits.images.listing import Listing
from fruits.images.plan import make_plan
from fruits.storage.folder import Folder
from tests.hostile.measure import say

if __name__ == "__main__":
    images, plan = sys.argv[1:]
    say([("plan", lambda: make_plan(Listing(images), 1024, Folder(plan)).images)])
