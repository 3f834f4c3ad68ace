"""The API of sets of pictures: makes, fills, changes and deletes them."""

from __future__ import annotations

from console.pages.sets.values import (
    ChangeBody,
    CropValue,
    FolderQuery,
    FoldersValue,
    KnownBody,
    KnownValue,
    LookBody,
    NewSetBody,
    NewSetValue,
    OnePictureValue,
    PageQuery,
    PicturesValue,
    PictureValue,
    SetsValue,
    SetValue,
    TakenValue,
    UploadBody,
    UploadValue,
    VersionValue,
)
from console.sets.browsing import find_problem, read_page
from console.sets.crops import crops_of
from console.sets.keeping import NewSet, SetKeeper
from console.sets.listings import inner_folders, is_below, permitted_folder
from console.sets.pictures import find_picture
from console.sets.sets import change_set, count_set, find_set, list_sets
from console.sets.uploads import MAX_ZIP_BYTES, Upload, take_upload
from console.web.routing import Answer, Call, Route, Values, api
from edge.errors import ConsoleError

_UPLOAD_BYTES = MAX_ZIP_BYTES + (1 << 20)  # with the form around it


def keeper(call: Call) -> SetKeeper:
    """Return the keeper of sets for a call."""
    services = call.services
    return SetKeeper(services.settings, services.database, services.tasks, services.clock)


def _list(call: Call) -> Answer:
    with call.services.database.read() as rows:
        return Values(SetsValue(sets=[SetValue.of(one) for one in list_sets(rows)]))


def _find(call: Call) -> Answer:
    with call.services.database.read() as rows:
        return Values(SetValue.of(count_set(rows, find_set(rows, call.path["id"]))))


def _make(call: Call) -> Answer:
    body = call.body
    new = NewSet(body.name, body.kind, body.shows, body.names, body.category, body.folder, body.model)
    set_id = keeper(call).make(call.user.name, new)
    return Values(NewSetValue(id=set_id), says=f"{body.name.strip()}: made", go=f"/sets/{set_id}", status=201)


def _change(call: Call) -> Answer:
    body, now_s = call.body, call.now_s
    with call.services.database.write() as connection:
        set_id, by = call.path["id"], call.user.name
        version = change_set(connection, now_s, by, set_id, body.version, body.name, body.category, body.model)
    return Values(VersionValue(version=version), says="Changed", go=".")


def _delete(call: Call) -> Answer:
    gone = keeper(call).delete(call.user.name, call.path["id"])
    return Values({}, says=f"{gone.name}: deleted", go="/sets")


def _look(call: Call) -> Answer:
    keeper(call).look(call.path["id"], again=call.body.again)
    return Values({}, says="Looking for new pictures", go=".")


def _upload(call: Call) -> Answer:
    if not call.files:
        raise ConsoleError("invalid", "the form holds no file; send pictures in fields called files")
    with call.services.database.read() as rows:
        picture_set = find_set(rows, call.path["id"])
    if picture_set.kind != "uploads":
        raise ConsoleError(
            "invalid", f"{picture_set.name}: takes no uploads; make a set for them, or put files into its folder"
        )
    upload = Upload(picture_set, call.user.name, call.now_s, call.body.folders_name_items)
    taken: list[TakenValue] = []
    try:
        for file in call.files:
            for one in take_upload(keeper(call).store, upload, file.name, file.path):
                taken.append(TakenValue(name=one.name, outcome=one.outcome, text=one.says, picture_id=one.picture_id))  # noqa: PERF401  keeps those before an error
    except ConsoleError as error:
        if not taken:
            raise
        return Values(UploadValue(files=taken, stopped=str(error)))
    return Values(UploadValue(files=taken))


def _known(call: Call) -> Answer:
    with call.services.database.read() as rows:
        set_id = find_set(rows, call.path["id"]).id
        query = "SELECT 1 FROM pictures WHERE set_id = ? AND sha256 = ?"
        known = [one for one in call.body.sha256 if rows.execute(query, (set_id, one)).fetchone()]
    return Values(KnownValue(sha256=known))


def _pictures(call: Call) -> Answer:
    query = call.query
    split = "" if query.split == "none" else query.split
    with call.services.database.read() as rows:
        picture_set = find_set(rows, call.path["id"])
        if query.which == "problems":
            raise ConsoleError("invalid", "which: problems are no pictures; read the page of the set")
        found = read_page(rows, picture_set, query.which, split, after=query.after, before=query.before)
    pictures = [PictureValue.of_tile(one) for one in found.tiles]
    return Values(PicturesValue(pictures=pictures, before=found.before, after=found.after))


def _picture(call: Call) -> Answer:
    with call.services.database.read() as rows:
        picture = find_picture(rows, call.path["id"])
        crops, problem = crops_of(rows, picture.id), find_problem(rows, picture)
    decided = sum(one.state != "open" for one in crops)
    value = PictureValue.of(picture, len(crops), decided, problem)
    return Values(OnePictureValue(picture=value, crops=[CropValue.of(one) for one in crops]))


def _delete_picture(call: Call) -> Answer:
    gone = keeper(call).delete_picture(call.user.name, call.path["id"])
    return Values({}, says=f"{gone.name}: deleted from the set", go=f"/sets/{gone.set_id}")


def _folders(call: Call) -> Answer:
    folders = call.services.settings.folders
    if not call.query.path and len(folders) > 1:
        return Values(FoldersValue(path="", parent=None, folders=[str(one) for one in folders]))
    folder = permitted_folder(folders, call.query.path or ".")
    parent = str(folder.parent) if is_below(folder.parent, folders) else None
    return Values(FoldersValue(path=str(folder), parent=parent, folders=inner_folders(folder)))


ACTIONS: tuple[Route, ...] = (
    api("GET", "/sets", "viewer", _list, "All sets of pictures", answer=SetsValue),
    api("POST", "/sets", "labeller", _make, "Make a set", body=NewSetBody, answer=NewSetValue),
    api("GET", "/sets/{id:int}", "viewer", _find, "A set", answer=SetValue),
    api("PATCH", "/sets/{id:int}", "labeller", _change, "Rename a set", body=ChangeBody, answer=VersionValue),
    api("DELETE", "/sets/{id:int}", "labeller", _delete, "Delete a set, with uploads and decisions"),
    api("POST", "/sets/{id:int}/look", "labeller", _look, "Look for new pictures", body=LookBody),
    api(
        "POST", "/sets/{id:int}/pictures", "labeller", _upload, "Upload pictures, or zip files of them",
        body=UploadBody, answer=UploadValue, upload_bytes=_UPLOAD_BYTES,
    ),
    api(
        "POST", "/sets/{id:int}/known", "labeller", _known, "Which pictures a set has already", body=KnownBody,
        answer=KnownValue,
    ),
    api(
        "GET", "/sets/{id:int}/pictures", "viewer", _pictures, "Pictures of a set, in pages", query=PageQuery,
        answer=PicturesValue,
    ),
    api("GET", "/pictures/{id:int}", "viewer", _picture, "A picture and its objects", answer=OnePictureValue),
    api("DELETE", "/pictures/{id:int}", "labeller", _delete_picture, "Delete a picture from its set"),
    api(
        "GET", "/folders", "labeller", _folders, "Folders of this server that are open to sets", query=FolderQuery,
        answer=FoldersValue,
    ),
)  # fmt: skip
