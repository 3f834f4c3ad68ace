"""The CSV index: which rows are read, left out and noticed."""

from __future__ import annotations

import pytest

from dataset_formats.index import read_index
from edge.errors import DataError
from tests.dataset_formats.samples import picture

HEAD = "path,split,category,item"


def index(folder, *rows: str, head: str = HEAD, pictures=("a.png", "b.png", "c.png")):
    """Read an index of these rows beside these pictures."""
    for number, name in enumerate(pictures):
        picture(folder / name, number)
    (folder / "index.csv").write_text("\n".join([head, *rows]) + "\n")
    return read_index(folder)


def items(listing) -> list[str]:
    return [sample.item for sample in listing.samples]


def noticed(listing) -> str:
    return "\n".join(listing.noticed)


def test_columns_may_be_coarse_and_fine(tmp_path):
    (sample,) = index(tmp_path, "a.png,train,jar,plum", head="Path,Split,Coarse,Fine").samples
    assert (sample.path, sample.split, sample.category, sample.item) == (tmp_path / "a.png", "train", "jar", "plum")


def test_label_is_optional(tmp_path):
    listing = index(tmp_path, "a.png,train,jar,plum,Plum", "b.png,train,jar,fig", head=f"{HEAD},label")
    assert [sample.label for sample in listing.samples] == ["Plum", ""]


@pytest.mark.parametrize("row", [",train,jar,plum", "a.png,train,,plum", "a.png,train,jar"])
def test_row_that_lacks_a_value_is_left_out_with_its_line(tmp_path, row):
    listing = index(tmp_path, "b.png,train,jar,fig", "", row, "c.png,train,jar,date")
    assert items(listing) == ["fig", "date"]
    assert len(listing.left_out) == 1
    assert "index.csv: line 4: " in listing.left_out[0]
    assert listing.left_out[0].endswith("is empty")


def test_row_without_its_picture_is_left_out_and_named(tmp_path):
    listing = index(tmp_path, "gone.png,train,jar,plum", "a.png,train,jar,fig")
    assert items(listing) == ["fig"]
    assert "line 2: gone.png: not found" in listing.left_out[0]


def test_index_of_which_no_row_is_usable_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none of 1 rows can be used; the first: .*line 2: gone\.png: not found"):
        index(tmp_path, "gone.png,train,jar,plum")
    with pytest.raises(DataError, match="has no rows; list one picture in each row"):
        index(tmp_path)


def test_paths_may_have_windows_separators(tmp_path):
    listing = index(
        tmp_path, r"jar\a.png,train,jar,plum", r".\jar\b.png,train,jar,fig", pictures=["jar/a.png", "jar/b.png"]
    )
    assert [sample.path.name for sample in listing.samples] == ["a.png", "b.png"]
    assert listing.noticed == []


def test_absolute_paths_of_another_machine_are_matched_by_their_end(tmp_path):
    listing = index(
        tmp_path,
        r"C:\sets\fruit\jar\a.png,train,jar,plum",
        "/elsewhere/me/fruit/can/a.png,train,can,fig",
        pictures=["x/jar/a.png", "x/can/a.png"],
    )
    assert [sample.path for sample in listing.samples] == [tmp_path / "x/jar/a.png", tmp_path / "x/can/a.png"]
    assert "pictures found by the end of their path: 2" in noticed(listing)


def test_name_that_several_pictures_have_is_left_out(tmp_path):
    listing = index(
        tmp_path, "old/a.png,train,jar,plum", "c.png,train,jar,fig", pictures=["x/a.png", "y/a.png", "c.png"]
    )
    assert items(listing) == ["fig"]
    assert "line 2: old/a.png: 2 pictures below" in listing.left_out[0]


def test_paths_may_start_one_folder_up(tmp_path):
    picture(tmp_path / "set/a.png")
    (tmp_path / "set/index.csv").write_text(f"{HEAD}\nset/gone.png,train,jar,fig\nset/a.png,train,jar,plum\n")
    assert [sample.path for sample in read_index(tmp_path / "set").samples] == [tmp_path / "set/a.png"]


def test_parent_folder_in_a_path_is_not_dropped(tmp_path):
    for name in ("lists/jar/a.png", "jar/a.png"):
        picture(tmp_path / name)
    (tmp_path / "lists/index.csv").write_text(f"{HEAD}\n../jar/a.png,train,jar,plum\n")
    assert read_index(tmp_path / "lists").samples[0].path.resolve() == tmp_path / "jar/a.png"


def test_given_root_is_where_paths_start(tmp_path):
    picture(tmp_path / "elsewhere/a.png")
    (tmp_path / "list.csv").write_text(f"{HEAD}\na.png,train,jar,plum\n")
    assert read_index(tmp_path / "list.csv", tmp_path / "elsewhere").samples[0].path.parent.name == "elsewhere"


@pytest.mark.parametrize(
    ("written", "split"),
    [("Train ", "train"), ("VALIDATION", "val"), ("val2017", "val"), ("latest", "latest"), (" Fold 3", "Fold 3")],
)
def test_split_values_are_ours_or_stay_as_written(tmp_path, written, split):
    listing = index(tmp_path, f"a.png,{written},jar,plum")
    assert [sample.split for sample in listing.samples] == [split]
    assert ("splits written otherwise" in noticed(listing)) == (split in ("train", "val"))


@pytest.mark.parametrize("head", [HEAD, "path,category,item"])
def test_index_without_splits_holds_out_every_fifth_picture(tmp_path, head):
    names = [f"{number}.png" for number in range(5)]
    middle = ",," if head == HEAD else ","
    listing = index(tmp_path, *(f"{name}{middle}jar,plum" for name in names), head=head, pictures=names)
    assert [sample.split for sample in listing.samples] == ["train"] * 4 + ["val"]
    assert "has no splits; every fifth picture" in noticed(listing)


def test_row_without_split_is_left_out_where_others_have_one(tmp_path):
    listing = index(tmp_path, "a.png,train,jar,plum", "b.png,,jar,fig")
    assert items(listing) == ["plum"]
    assert "line 3: split is empty" in listing.left_out[0]


def test_row_that_repeats_another_is_read_once(tmp_path):
    listing = index(tmp_path, "a.png,train,jar,plum", r".\a.png,Train,jar,plum", "b.png,train,jar,plum")
    assert [sample.path.name for sample in listing.samples] == ["a.png", "b.png"]
    assert "rows that repeat another; read once: 1 (line 3)" in noticed(listing)


def test_picture_with_two_items_is_read_twice_and_noticed(tmp_path):
    listing = index(tmp_path, "a.png,train,jar,plum", "a.png,train,jar,fig")
    assert items(listing) == ["plum", "fig"]
    assert "pictures with several items; read with each of them: 1 (a.png: jar/plum and jar/fig)" in noticed(listing)


def test_picture_in_two_splits_is_read_twice_and_noticed(tmp_path):
    listing = index(tmp_path, "a.png,train,jar,plum", "a.png,val,jar,plum")
    assert [sample.split for sample in listing.samples] == ["train", "val"]
    assert "pictures in several splits; read in each of them: 1 (a.png: train and val)" in noticed(listing)


def test_cameras_and_attributes_are_read(tmp_path):
    head = f"{HEAD},camera,Attribute:Colour,attribute:make"
    listing = index(tmp_path, "a.png,train,jar,plum,left,red,", "b.png,train,jar,plum,,blue,Merle", head=head)
    assert [(one.camera, one.attributes) for one in listing.samples] == [
        ("left", (("colour", "red"),)),
        ("", (("colour", "blue"), ("make", "Merle"))),
    ]
    assert listing.noticed == []


def test_columns_that_change_the_meaning_are_named(tmp_path):
    head = f"{HEAD},xmin,ymin,xmax,ymax,IsCrowd,shelf"
    listing = index(tmp_path, "a.png,train,jar,plum,1,2,30,20,0,left", head=head)
    assert "columns xmin, ymin, xmax, ymax are not used: a row is a whole picture of one object" in listing.noticed[0]
    assert listing.noticed[1:] == [f"{tmp_path}/index.csv: columns shelf are not used"]
    listing = index(tmp_path, "a.png,train,jar,plum,1,2,30,20,1,", head=head)
    assert "columns xmin, ymin, xmax, ymax, iscrowd are not used" in listing.noticed[0]
    assert len(listing.noticed) == 1


def test_text_that_looks_like_paths_stays_text(tmp_path):
    (sample,) = index(tmp_path, "a b é🙂.png,train,can/zero,../../etc", pictures=["a b é🙂.png"]).samples
    assert (sample.category, sample.item) == ("can/zero", "../../etc")
