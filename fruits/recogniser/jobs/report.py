"""The report of a training as one page; and the command that writes the report of any finished output again."""

from __future__ import annotations

from fruits.jobs.output import storage_errors
from fruits.jobs.report import REPORT, finished
from fruits.jobs.reporting import write
from fruits.jobs.reporting.label_section import label_section
from fruits.jobs.reporting.page import settings
from fruits.pages.document import document, facts, table, text, tiles, wall
from fruits.recogniser.files import StoredRecogniser, read_recogniser
from fruits.storage.commits import Commit, OwnedFolder
from fruits.storage.folder import Folder

PICTURED = 64  # classes


def write_report(out: str, *, tsne: bool = False) -> str:
    """Write the report of a finished fit, run, transform or training again, and return its address.

    The page loads nothing from elsewhere, and is at most 2 MB. It shows pictures and names of images, so that it may be
    shown to whoever may see these. The work is bounded: of large outputs, parts are chosen by hash, and the page states
    how many.

    Parameters
    ----------
    out : str
        The output folder: a local path or any fsspec URL.
    tsne : bool, default False
        Add a map of up to 1,500 images by t-SNE, which needs the extra ``report``; not for a training.

    Raises
    ------
    OutputError
        The folder contains no finished output of these commands, or cannot be written.
    DamageError
        A stored file is corrupt.
    SettingsError
        `tsne` without scikit-learn.
    """
    folder = Folder.at(out)
    with storage_errors(out):
        is_training = finished(folder).job["command"] == "train"
        name = write_page(folder) if is_training else write.write_page(folder, tsne=tsne)
    return (folder / name).address


def write_page(out: Folder) -> str:
    """Write the page of a finished training, and return its name below the folder."""
    commit = finished(out)
    owned = OwnedFolder(out, commit.owner, commit.number)
    name = owned.name(REPORT, "html")
    owned.write(name, _render(read_recogniser(out), commit, out.address).encode())
    return name


def _render(stored: StoredRecogniser, commit: Commit, address: str) -> str:
    images = sum(stored.counts.values())
    calibrated = stored.calibration_images
    values = [
        (f"{len(stored.labels):,}", "classes", ""),
        (f"{images:,}", "training images", ""),
        (f"{len(stored.arrays['classes']):,}", "prototypes", ""),
        (f"{calibrated:,}", "calibration images", "held out" if calibrated else "none: it rejects nothing"),
    ]
    sources = [
        [
            text(source["address"]),
            f"{source['images']:,}",
            f"{source['rejects']:,}",
            f"{source['weight']}",
            "unknown" if source["classes"] is None else f"{len(set(source['classes'].values())):,}",
        ]
        for source in stored.sources
    ]
    quantiles = {name: stored.thresholds[name] for name in ("doubt", "distance")}
    decision = {
        f"{name} of held-out images: median, largest": f"{known[len(known) // 2]:.4g}, {known[-1]:.4g}"
        for name, known in quantiles.items()
    }
    decision |= {
        "smallest product of ranks": f"{stored.thresholds['product']:,}",
        "temperature of similarities": f"{stored.temperature:.4g}",
    }
    sections = [
        f'<h1>Recogniser {text(stored.version)}</h1><p class="soft">{text(address, 200)}</p>',
        tiles(values),
        label_section(stored.counts, "training images", "class"),
        "<h2>Sources</h2>" + table(["images of", "images", "rejects", "weight", "classes"], sources),
        _pictures(stored),
        "<h2>Decision</h2><p>An image is rejected if its doubt (1 &minus; confidence) and its distance from the "
        "training images are, together, more unusual than those of 95 % of the held-out images. "
        "<code>fruits evaluate</code> measures the recogniser on other images.</p>" + facts(decision),
        "<h2>Settings and versions</h2>" + facts(dict(settings(commit.job))),
    ]
    return document(f"Recogniser {stored.version}", sections)


def _pictures(stored: StoredRecogniser) -> str:
    """Return a training image of each class, of the first classes."""
    chosen: dict[str, bytes] = {}
    for key, label, _ in stored.neighbours:
        picture = stored.thumbnails.get(key)
        if label and picture is not None and len(chosen) < PICTURED:
            chosen.setdefault(label, picture)
    if not chosen:
        return ""
    return (
        f"<h2>Typical images</h2><p>The training image nearest a prototype, of {len(chosen):,} classes.</p>"
        f"{wall(chosen)}"
    )
