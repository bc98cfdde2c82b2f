"""Listings on a real S3 server."""

import os

import pytest

from fruits.errors import DatasetError
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.storage.folder import Folder
from tests import trees
from tests.plans import through_storage
from tests.s3.server import close_clients

JPEG = b"\xff\xd8\xff\xe0 the rest does not matter to a listing"
NAMES = [
    *("b/1.jpg", "a/2.jpg", "a/10.jpg", "a.jpg", "a-b/1.jpg", "a/deep/er/x.png", "Z/1.jpg", "a/no extension"),
    *("a/a b.jpg", "a/#1.jpg", "a/50%.jpg", "a/%41.jpg", "a/?x=1&y.jpg", "a/[a-z]*.jpg", "a/::.jpg", "a/it's+1.jpg"),
    *("pêche/🍑.jpg", "a/{b}.jpg", "a/~.jpg", "a/2.jpg?versionId=1"),
]


def write(root, *names, data=JPEG):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def refusal(code, message="No."):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    status = {"PermanentRedirect": b"301 Moved", "AuthorizationHeaderMalformed": b"400 Bad"}.get(code, b"403 Forbidden")
    return b"HTTP/1.1 %b\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def test_bucket_lists_like_a_local_folder_and_every_name_is_readable(bucket, folder_of, tmp_path):
    for root in (folder_of(bucket) / "images", tmp_path / "images"):
        write(root, *NAMES)
        write(root, "README.md", "a/.DS_Store", data=b"words")
    listing = Listing(open_source(f"{bucket}/images"))
    entries = list(listing)
    assert [entry[:2] for entry in entries] == [entry[:2] for entry in Listing(open_source(str(tmp_path / "images")))]
    assert listing.skipped == {"not-image": 1, "hidden": 1}
    stored = through_storage(entries, Folder.at(f"{bucket}/plan"))
    assert stored == entries
    assert list(open_source(f"{bucket}/images").read(entries)) == [JPEG] * len(entries)


def test_same_tree_gives_the_same_plan_as_on_a_local_disk(bucket, folder_of, tmp_path):
    excluded = "\n\r" + os.fsdecode(bytes([255]))  # keys are UTF-8; this server alters control characters
    for root in (folder_of(bucket) / "images", tmp_path / "images"):
        trees.write(root, trees.tree(excluded))
    expected = trees.expected(excluded)
    assert trees.planned(f"{bucket}/images") == trees.planned(str(tmp_path / "images")) == expected


def test_empty_objects_of_tools_are_not_images(bucket, folder_of):
    write(folder_of(bucket), "label/1.jpg")
    write(folder_of(bucket), "_SUCCESS", "label_$folder$", "label/.gitkeep", "label/empty.jpg", data=b"")
    listing = Listing(open_source(bucket))
    assert [(entry.path, entry.size) for entry in listing] == [("label/1.jpg", len(JPEG)), ("label/empty.jpg", 0)]
    assert listing.skipped == {"not-image": 2, "hidden": 1}


def test_listing_requests_only_the_pages_needed(bucket, folder_of, proxy):
    write(folder_of(bucket), *(f"label/{number:04d}.jpg" for number in range(2500)))
    between = proxy()
    assert len(list(Listing(open_source(bucket), limit=10))) == 10
    assert len([line for line in between.seen if "list-type=2" in line]) == 1
    entries = list(Listing(open_source(bucket)))
    assert [entry.path for entry in entries] == [f"label/{number:04d}.jpg" for number in range(2500)]
    assert len([line for line in between.seen if "list-type=2" in line]) == 1 + 3


def test_listing_error_names_its_cause_at_once(bucket, folder_of, monkeypatch):
    write(folder_of(bucket), "images/1.jpg")
    for address, text in (
        (f"{bucket}/missing", "no such folder"),
        (f"{bucket}/images/1.jpg", "not a folder"),
        ("s3://nowhere/images", r"the bucket nowhere does not exist at http://127"),
    ):
        with pytest.raises(DatasetError, match=text):
            list(Listing(open_source(address)))
    for name, value, text in (
        ("AWS_SECRET_ACCESS_KEY", "wrong", "were refused: SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "AKIANOBODY", "were refused: InvalidAccessKeyId"),
        ("AWS_PROFILE", "nobody", r"no credentials .*nobody.*AWS_PROFILE"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", r"no response from S3 .*s3_endpoint"),
    ):
        close_clients()
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(DatasetError, match=text):
                list(Listing(open_source(f"{bucket}/images")))
    close_clients()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DatasetError, match=r"no credentials .*FSSPEC_S3_ANON"):
        list(Listing(open_source(f"{bucket}/images")))


def test_images_that_may_be_listed_but_not_read_are_rejected_at_once(bucket, folder_of, proxy):
    write(folder_of(bucket), *(f"label/{number}.jpg" for number in range(20)))
    proxy(answers={".jpg": refusal("AccessDenied")})
    with pytest.raises(DatasetError, match=r"get_object is forbidden for s3://.*/label/0\.jpg.*policy"):
        list(Listing(open_source(bucket)))


def test_single_forbidden_image_does_not_end_the_listing(bucket, folder_of, proxy):
    write(folder_of(bucket), *(f"label/{number}.jpg" for number in range(20)))
    proxy(answers={"/0.jpg": refusal("AccessDenied")})
    assert len(list(Listing(open_source(bucket)))) == 20
    forbidden, other = Folder.at(bucket).fetch([("label/0.jpg", len(JPEG), ""), ("label/1.jpg", len(JPEG), "")])
    assert isinstance(forbidden, PermissionError)
    assert other == JPEG


@pytest.mark.parametrize("code", ["PermanentRedirect", "AuthorizationHeaderMalformed"])
def test_bucket_in_another_region_is_named_in_the_error(bucket, proxy, code):
    proxy(answers={"list-type=2": refusal(code, "the region 'eu-west-3' is wrong; expecting 'us-west-2'")})
    with pytest.raises(DatasetError, match=rf"another region.*{code}.*us-west-2.*AWS_DEFAULT_REGION"):
        list(Listing(open_source(bucket)))
