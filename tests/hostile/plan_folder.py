"""Plan the images of a folder in a child process: ``python -m tests.hostile.plan_folder IMAGES PLAN``."""

from __future__ import annotations

import sys

from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.plan.pages import write_list
from fruits.storage.folder import Folder
from tests.hostile.measure import print_measurements

if __name__ == "__main__":
    images, plan = sys.argv[1:]
    print_measurements([("plan", lambda: write_list(Listing(open_source(images)).tables(), Folder(plan)).images)])
