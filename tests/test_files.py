import errno
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from lits_helpers import files
from lits_helpers.files import DataError, atomic_path, collected_error, fingerprint, read_table, shown, write_json, write_table


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_file_is_moved_under_its_name(tmp_path):
    with atomic_path(tmp_path / "new" / "table.csv") as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".csv"
    assert names_in(tmp_path / "new") == ["table.csv"]


def test_after_an_error_the_older_file_stays_and_nothing_else(tmp_path):
    (tmp_path / "table.csv").write_text("older")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "table.csv") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert names_in(tmp_path) == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "older"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_gives_an_error_with_the_file_and_the_variable(tmp_path, code):
    with pytest.raises(DataError, match="table.csv.*LITS_OUTPUT_ROOT"):
        with atomic_path(tmp_path / "table.csv") as temporary:
            temporary.write_text("half")
            raise OSError(code, os.strerror(code))
    assert names_in(tmp_path) == []


def test_after_an_interruption_by_the_user_nothing_is_left(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "table.csv") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert names_in(tmp_path) == []


@pytest.fixture
def stranger():
    """Number of a process that runs until it is told to end by a call."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid, lambda: process.communicate(b"\n")


def test_what_a_killed_process_was_writing_goes_with_the_next_ones_first_file(tmp_path, stranger, monkeypatch):
    number, end = stranger
    monkeypatch.setattr(files, "_MACHINE", "here")
    ours, others, far = (
        f".writing-{machine}-{of}-x.csv" for machine, of in (("here", os.getpid()), ("here", number), ("there", 2**22 + 1))
    )
    (tmp_path / f".writing-here-{number}-folder").mkdir()
    (tmp_path / f".writing-here-{number}-folder" / "half").touch()

    def written_first():
        for name in (ours, others, far):
            (tmp_path / name).touch()
        monkeypatch.setattr(files, "_tidied", set())
        with atomic_path(tmp_path / "table.csv") as temporary:
            temporary.touch()
        return names_in(tmp_path)

    kept = [] if os.name == "nt" else [others, f".writing-here-{number}-folder"]
    assert written_first() == sorted([*kept, far, "table.csv"])
    end()
    assert written_first() == sorted([far, "table.csv"])


@pytest.mark.skipif(os.name == "nt", reason="Windows is not asked")
def test_a_process_of_another_user_counts_as_running(monkeypatch):
    def refused(process, signal):
        raise PermissionError

    monkeypatch.setattr(files.os, "kill", refused)
    assert files._runs(os.getpid() + 1)


def test_a_file_that_is_being_written_stays_when_more_are_written_beside_it(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with atomic_path(tmp_path / "folder" / "a") as first, atomic_path(tmp_path / "link" / "b") as second:
        first.touch()
        second.touch()
    assert names_in(tmp_path / "folder") == ["a", "b"]


def test_a_temporary_folder_is_left_empty_and_names_what_it_was_refused(tmp_path):
    with files.temporary_folder(tmp_path / "new") as folder:
        (folder / "left").touch()
        os.replace(folder / "left", tmp_path / "new" / "kept")
        (folder / "half").touch()
    assert names_in(tmp_path / "new") == ["kept"]
    with pytest.raises(DataError, match="no space left while writing .*new.*LITS_OUTPUT_ROOT"):
        with files.temporary_folder(tmp_path / "new") as folder:
            (folder / "half").touch()
            raise OSError(errno.ENOSPC, "full")
    assert names_in(tmp_path / "new") == ["kept"]


def test_other_errors_of_the_system_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "table.csv"):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="LITS_OUTPUT_ROOT"), atomic_path(tmp_path / "file" / "x.csv"):
        pass


def test_too_little_free_space_is_told_beforehand(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
    files.require_free_space(tmp_path / "not" / "there" / "yet", 1_000_000)
    with pytest.raises(DataError, match="2 MB are needed.*1 MB are free"):
        files.require_free_space(tmp_path, 2_000_000)


@pytest.fixture
def two_files(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("same")
    return paths


def test_a_fingerprint_stays_while_the_files_do(two_files):
    assert fingerprint(two_files, 128) == fingerprint(two_files, 128)


@pytest.mark.parametrize("change", ["size", "time", "added", "removed", "order", "extra"])
def test_a_fingerprint_changes_with_the_files_and_the_extras(two_files, change):
    before = fingerprint(two_files, 128)
    extra = 128
    if change == "size":
        two_files[0].write_text("longer")
    elif change == "time":
        os.utime(two_files[0], ns=(1, 1))
    elif change == "added":
        (two_files[0].parent / "c").write_text("same")
        two_files.append(two_files[0].parent / "c")
    elif change == "removed":
        two_files.pop()
    elif change == "order":
        two_files.reverse()
    else:
        extra = 96
    assert fingerprint(two_files, extra) != before


def test_a_link_that_leads_nowhere_has_a_fingerprint_that_changes_with_its_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    before = fingerprint([tmp_path / "link"])
    (tmp_path / "file").write_text("fetched")
    assert fingerprint([tmp_path / "link"]) != before


def test_few_problems_are_all_listed_and_none_counted_as_more():
    lines = str(collected_error(["file 0", "file 1"], advice="Mend them.")).splitlines()
    assert lines == ["2 problem(s) found:", "  - file 0", "  - file 1", "Mend them."]


def test_one_error_lists_many_problems_and_ends_with_the_advice():
    message = str(collected_error([f"file {n}" for n in range(25)], advice="Mend them."))
    assert message.startswith("25 problem(s)") and message.endswith("Mend them.")
    assert "file 19" in message and "file 20" not in message and "5 more" in message


def test_a_table_has_its_types_and_empty_text(tmp_path):
    (tmp_path / "a.csv").write_text("volume,words,dice\n3,,\n4,none,0.5\n")
    table = read_table(tmp_path / "a.csv", {"volume": int, "words": str, "dice": float})
    assert table.volume.tolist() == [3, 4] and table.words.tolist() == ["", "none"]
    assert table.dice.isna().tolist() == [True, False] and table.dice[1] == 0.5


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = pd.DataFrame({"volume": [3, 4], "words": ["", "a, b"], "dice": [float("nan"), 0.5]})
    write_table(tmp_path / "new" / "a.csv", table)
    assert (tmp_path / "new" / "a.csv").read_text() == 'volume,words,dice\n3,,\n4,"a, b",0.5\n'
    pd.testing.assert_frame_equal(read_table(tmp_path / "new" / "a.csv", {"volume": int, "words": str, "dice": float}), table)


def test_json_that_cannot_be_written_leaves_the_older_file(tmp_path):
    write_json(tmp_path / "a.json", {"volumes": [1]})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"volumes": {1}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"volumes": [1]}
    assert names_in(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [
    b"", b"volume\n", b"volume,words\n3.5,a\n", b"volume,words\n,a\n", b"volume,words\n1,\0\n", b"\xff\xfe,\n",
])
def test_a_table_that_is_not_as_it_was_written_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match="a.csv: damaged, or of another version .*delete this file"):
        read_table(tmp_path / "a.csv", {"volume": int, "words": str})


def test_near_paths_are_shown_short_and_far_ones_whole(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert shown(tmp_path / "outputs" / "x") == os.path.join("..", "outputs", "x")
    assert shown("/elsewhere/x") == "/elsewhere/x"


def test_a_path_on_another_drive_of_windows_is_shown_whole(monkeypatch):
    def refused(path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(files.os.path, "relpath", refused)
    assert shown("D:/lits") == "D:/lits"
