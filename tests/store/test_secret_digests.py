"""The salted digests of an experiment's secrets, and what may stand in their place."""

import os

import pytest

from rf_notebook.core.objects import Objects
from rf_notebook.store import layout
from rf_notebook.store.secret_digests import read_secret_names, write_secret_names


@pytest.fixture
def written(tmp_path):
    objects = Objects()
    for text in ("dear", "cheap"):
        objects.add_secret("token", text)
    write_secret_names(tmp_path, objects.secret_names())
    return tmp_path


def test_they_come_back_for_their_owner_alone(written):
    names = read_secret_names(written)
    assert (names.name_of("token", "dear"), names.name_of("token", "cheap")) == ("token", "token#2")
    assert names.name_of("token", "other") is None
    assert names.name_of("password", "dear") is None
    assert layout.secrets(written).stat().st_mode & 0o777 == 0o600
    assert b"dear" not in layout.secrets(written).read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"salt": "xyz", "digests": {}}',
        '{"salt": "00", "digests": []}',
        '{"salt": "00", "digests": {"token": 1}}',
    ],
)
def test_a_file_that_cannot_be_understood_is_none(tmp_path, text):
    layout.secrets(tmp_path).write_text(text)
    assert not read_secret_names(tmp_path).digests


def test_a_link_is_not_followed(written, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    os.symlink(layout.secrets(written), layout.secrets(elsewhere))  # noqa: PTH211 - the call that makes links
    assert not read_secret_names(elsewhere).digests
    before = layout.secrets(written).read_bytes()
    write_secret_names(elsewhere, Objects().secret_names())
    assert layout.secrets(written).read_bytes() == before
