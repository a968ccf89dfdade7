"""Images that a catalogue names: they are there, of the kind that their names say, and nothing else is sent."""

from pathlib import Path

import pytest

from api.catalogue_files import LARGEST, images, read_catalogue, read_file
from bandit.catalogue.loading import read_shipped, shipped
from bandit.errors import CatalogueError

FIELD = "stages.cart.nudges.price_freeze.content.image"
GOOD = {
    "a.png": b"\x89PNG\r\n\x1a\n....",
    "a.jpg": b"\xff\xd8\xff\xe0",
    "a.jpeg": b"\xff\xd8\xff\xdb",
    "a.webp": b"RIFF....WEBPVP8 ",
    "a.avif": b"....ftypavif....",
    "a.svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
}


def catalogue(folder: Path, name: str) -> Path:
    text = read_shipped("travel")
    assert text.count('image = "hold.svg"') == 1
    (folder / "mine.toml").write_text(text.replace('image = "hold.svg"', f'image = "{name}"'))
    return folder / "mine.toml"


def mistakes(path: Path) -> list[tuple[str, str, str]]:
    with pytest.raises(CatalogueError) as error:
        read_file(path)
    return [(one.field, one.problem, one.fix) for one in error.value.mistakes]


@pytest.mark.parametrize("name", GOOD)
def test_an_image_beside_the_catalogue_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    path = catalogue(tmp_path, name)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "other.png").write_bytes(GOOD["a.png"])
    (tmp_path / "images" / name).write_bytes(GOOD[name])
    found = images(str(path), read_file(path))
    assert set(found) == {name}  # no other file of the folder
    assert found[name].content == GOOD[name]
    assert found[name].media.startswith("image/")


@pytest.mark.parametrize("name", GOOD)
def test_one_that_is_something_else_is_refused(tmp_path: Path, name: str) -> None:
    path = catalogue(tmp_path, name)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / name).write_bytes(b"<html>" if name == "a.svg" else GOOD["a.svg"])
    ((field, problem, fix),) = mistakes(path)
    assert (field, fix) == (FIELD, "give it the ending of what it is")
    assert problem.startswith(f"{name} is no image/")


def test_one_that_is_missing_or_too_large_is_named_with_its_fix(tmp_path: Path) -> None:
    path = catalogue(tmp_path, "coat.png")
    assert mistakes(path) == [(FIELD, f"no file 'coat.png' in {tmp_path / 'images'}", "put it there; known: none")]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "coats.png").write_bytes(GOOD["a.png"])
    assert mistakes(path)[0][2] == "put it there; did you mean `coats.png`? known: coats.png"
    (tmp_path / "images" / "coat.png").write_bytes(GOOD["a.png"] + b"." * (LARGEST - len(GOOD["a.png"]) + 1))
    assert mistakes(path) == [(FIELD, "coat.png has 200,001 bytes", "at most 200,000: people wait for it")]


def test_a_copy_of_a_shipped_catalogue_finds_its_images_and_may_have_others(tmp_path: Path) -> None:
    path = catalogue(tmp_path, "hold.svg")
    theirs = images("travel", read_catalogue("travel"))
    assert images(str(path), read_file(path)) == theirs
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "hold.svg").write_bytes(GOOD["a.svg"])
    assert images(str(path), read_file(path))["hold.svg"].content == GOOD["a.svg"]


def test_the_images_of_shipped_catalogues_are_all_there_and_all_used() -> None:
    used = {name for app in shipped() for name in images(app, read_catalogue(app))}
    folder = Path(read_file.__code__.co_filename).parents[1] / "bandit" / "catalogue" / "apps" / "images"
    assert used == {path.name for path in folder.iterdir()}
    for app in shipped():
        named = read_shipped(app).count("\nimage = ")
        assert named >= len(images(app, read_catalogue(app)))
