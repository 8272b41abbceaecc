"""Results on disk: the same numbers again, and what happens when the file is full, shared, damaged or somebody's."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from qa_inference import cache as cache_file
from qa_inference.cache import CachedModel, ResultCache, checkpoint_digest, pack_hypotheses, unpack_hypotheses
from qa_inference.decoding import DiverseBeamSearch, Hypothesis
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.shared_rows import ScoringRequest
from tests import tiny

SIZE = 2**24
KEYS = [bytes([i]) * 32 for i in range(4)]
INPUTS = [[2, 40, 41, 42, 3], [2, 50, 3], [2, 60, 61, 3]]
SEARCH = DiverseBeamSearch(groups=6, min_new_tokens=2, max_new_tokens=9)
ITEMS = [ScoringRequest([2, 40, 41, 3], [[9, 12, 3], [30, 3]]), ScoringRequest([2, 50, 3], [[9, 12, 3]])]

Open = Callable[..., ResultCache]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens caches in one folder, and closes them."""
    made = []

    def open_one(size: int = SIZE) -> ResultCache:
        made.append(ResultCache(tmp_path / "cache", size))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


class Counting:
    """A toy BART that notes how much it was asked."""

    def __init__(self) -> None:
        self.inner = EncoderDecoder(*tiny.checkpoint("bart"))
        self.model = self.inner.model
        self.asked: list[int] = []

    def generate(
        self, inputs: Sequence[Sequence[int]], search: DiverseBeamSearch, *, end_ids: Sequence[int] = ()
    ) -> list[list[Hypothesis]]:
        self.asked.append(len(inputs))
        return self.inner.generate(inputs, search, end_ids=end_ids)

    def log_likelihood(self, items: Sequence[ScoringRequest]) -> list[list[np.ndarray]]:
        self.asked.append(sum(len(item.targets) for item in items))
        return self.inner.log_likelihood(items)


def _rows(hypotheses: Sequence[Sequence[Hypothesis]]) -> list[list[tuple[str, bytes, bytes, bool]]]:
    """All there is to hypotheses, to the bit."""
    return [
        [
            (str(h.tokens.dtype) + str(h.log_probs.dtype), h.tokens.tobytes(), h.log_probs.tobytes(), h.ended)
            for h in each
        ]
        for each in hypotheses
    ]


def _numbers(cache: ResultCache, keys: Sequence[bytes], asked: list[list[int]]) -> list[int]:
    """Key n's value is 10 n."""

    def compute(missing: list[int]) -> list[int]:
        asked.append(missing)
        return [10 * keys[place][0] for place in missing]

    return cache.complete(keys, compute, lambda value: b"%d" % value, int)


def _change(folder: Path, statement: str) -> None:
    """Change the file behind the cache's back."""
    with sqlite3.connect(folder / "cache" / "cache.db") as connection:
        connection.execute(statement)
    connection.close()


# ---- entries -------------------------------------------------------------------------------------------------------


def test_hypotheses_come_back_to_the_bit() -> None:
    model = EncoderDecoder(*tiny.checkpoint("bart"))
    end = int(model.generate(INPUTS, SEARCH)[0][0].tokens[4])
    made = model.generate(INPUTS, SEARCH, end_ids=(end,))
    assert {h.ended for each in made for h in each} == {True, False}
    assert _rows([unpack_hypotheses(pack_hypotheses(each)) for each in made]) == _rows(made)
    assert unpack_hypotheses(pack_hypotheses([])) == []


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff\xff\xff\xff", b"\x01\0\0\0\x02\0\0\0\x01" + bytes(15)])
def test_other_bytes_are_no_hypotheses(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"buffer|do not take|size"):
        unpack_hypotheses(data)


def test_what_is_there_is_not_computed(opened: Open) -> None:
    asked: list[list[int]] = []
    assert _numbers(opened(), KEYS[1:3], asked) == [10, 20]
    assert _numbers(opened(), KEYS, asked) == [0, 10, 20, 30]  # another process's, say
    assert _numbers(opened(), KEYS[::-1], asked) == [30, 20, 10, 0]
    assert asked == [[0, 1], [0, 3]]
    assert _numbers(opened(), [], asked) == []


# ---- the model's operations ------------------------------------------------------------------------------------------


def test_generation_is_the_models_and_done_once(opened: Open) -> None:
    model = Counting()
    cached = CachedModel(model, opened(), "float32")
    expected = _rows(model.inner.generate(INPUTS, SEARCH, end_ids=(30,)))
    assert _rows(cached.generate(INPUTS, SEARCH, end_ids=(30,))) == expected
    assert _rows(cached.generate(INPUTS, SEARCH, end_ids=(30,))) == expected
    assert _rows(cached.generate(INPUTS[1:2], SEARCH, end_ids=(30,))) == expected[1:2]
    assert model.asked == [3]


def test_scoring_is_the_models_and_done_once_for_each_target(opened: Open) -> None:
    model = Counting()
    cached = CachedModel(model, opened(), "float32")
    expected = model.inner.log_likelihood(ITEMS)
    for _ in range(2):
        for each, wanted in zip(cached.log_likelihood(ITEMS), expected, strict=True):
            assert [(a.dtype, a.tobytes()) for a in each] == [(a.dtype, a.tobytes()) for a in wanted]
    assert model.asked == [3]
    more = [
        ScoringRequest(ITEMS[0].source, [[9, 12, 3], [31, 3], [30, 3]]),
        ScoringRequest([2, 50, 51, 3], [[9, 12, 3]]),
    ]
    for each, wanted in zip(cached.log_likelihood(more), model.inner.log_likelihood(more), strict=True):
        for one, other in zip(each, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)  # of another batch
    assert model.asked == [3, 2]


def test_a_key_has_all_that_changes_a_number(opened: Open) -> None:
    model = Counting()
    CachedModel(model, opened(), "float32").generate(INPUTS, SEARCH)
    CachedModel(model, opened(), "float32").log_likelihood(ITEMS)
    del model.asked[:]
    others = [DiverseBeamSearch(6, 0.4, 2, 9), DiverseBeamSearch(5, 0.5, 2, 9), DiverseBeamSearch(6, 0.5, 3, 9)]
    for search in (*others, DiverseBeamSearch(6, 0.5, 2, 8)):
        CachedModel(model, opened(), "float32").generate(INPUTS[:1], search)
    CachedModel(model, opened(), "float32").generate(INPUTS[:1], SEARCH, end_ids=(30,))
    CachedModel(model, opened(), "bfloat16").generate(INPUTS[:1], SEARCH)
    CachedModel(model, opened(), "bfloat16").log_likelihood(ITEMS[1:])
    assert model.asked == [1] * 7
    model.model.get_decoder().layers[0].fc1.bias.data[0] += 1e-3  # other weights under the same name
    CachedModel(model, opened(), "float32").generate(INPUTS[:1], SEARCH)
    CachedModel(model, opened(), "float32").log_likelihood(ITEMS[1:])
    assert model.asked == [1] * 9


def test_the_digest_of_a_checkpoint_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    one, other = (
        EncoderDecoder.load(str(tiny.save("bart", tmp_path / name)), LoadingOptions(device="cpu")).model
        for name in "ab"
    )
    assert checkpoint_digest(one) == checkpoint_digest(other)
    other.config.activation_function = "relu"
    assert checkpoint_digest(one) != checkpoint_digest(other)


# ---- size, processes ------------------------------------------------------------------------------------------------


def test_the_least_recently_used_go_when_it_is_full(opened: Open, tmp_path: Path) -> None:
    cache = opened(2**18)
    keys = [i.to_bytes(32, "big") for i in range(400)]
    computed: list[int] = []

    def use(some: Sequence[int]) -> None:
        def compute(missing: list[int]) -> list[bytes]:
            computed.extend(some[place] for place in missing)
            return [some[place].to_bytes(2, "big") * 1000 for place in missing]

        values = cache.complete([keys[i] for i in some], compute, bytes, bytes)
        assert values == [i.to_bytes(2, "big") * 1000 for i in some]

    for i in range(400):
        use([i])
        use([0])  # is used all along
    assert computed == list(range(400))
    cache.close()
    assert (tmp_path / "cache" / "cache.db").stat().st_size < 2**18 + 2**14
    use([1])
    use([399])
    assert computed == [*range(400), 1]


def _fill(folder: str, first: int, count: int) -> None:
    """A process that computes some of the values, in batches of three."""
    warnings.simplefilter("error")
    cache = ResultCache(folder, SIZE)
    for start in range(first, first + count, 3):
        keys = [i.to_bytes(32, "big") for i in range(start, min(start + 3, first + count))]
        assert cache.complete(keys, lambda missing, keys=keys: [keys[i] for i in missing], bytes, bytes) == keys
    cache.close()


def test_a_cache_travels_to_another_process(opened: Open) -> None:
    asked: list[list[int]] = []
    _numbers(opened(), KEYS, asked)
    travelled = pickle.loads(pickle.dumps(opened()))
    assert _numbers(travelled, KEYS, asked) == [0, 10, 20, 30] and len(asked) == 1
    travelled.close()


def test_processes_share_a_folder_that_none_has_made(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads; the children start none
        processes = [context.Process(target=_fill, args=(str(tmp_path / "cache"), 30 * i, 60)) for i in range(3)]
        for process in processes:
            process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    cache = ResultCache(tmp_path / "cache", SIZE)
    keys = [i.to_bytes(32, "big") for i in range(120)]
    assert cache.complete(keys, lambda missing: pytest.fail(f"{missing} are missing"), bytes, bytes) == keys
    cache.close()


# ---- damage ---------------------------------------------------------------------------------------------------------

DAMAGES = {
    "truncated": "UPDATE Cache SET value = substr(value, 1, 17) WHERE rowid = 2",
    "empty": "UPDATE Cache SET value = x'' WHERE rowid = 2",
    "another's": "UPDATE Cache SET value = (SELECT value FROM Cache WHERE rowid = 1) WHERE rowid = 2",
    "text": "UPDATE Cache SET value = 'x' WHERE rowid = 2",
    "null": "UPDATE Cache SET value = NULL WHERE rowid = 2",
    "a file": "UPDATE Cache SET value = NULL, mode = 2, filename = '../precious' WHERE rowid = 2",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_costs_that_entry_and_one_warning(damage: str, opened: Open, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    asked: list[list[int]] = []
    _numbers(opened(), KEYS, asked)
    _change(tmp_path, DAMAGES[damage])
    with pytest.warns(UserWarning, match=r"cache '.*': an entry is damaged \(.*\); .* are computed again") as told:
        assert _numbers(opened(), KEYS, asked) == [0, 10, 20, 30]
    assert len(told) == 1 and asked == [[0, 1, 2, 3], [1]]
    assert _numbers(opened(), KEYS, asked) == [0, 10, 20, 30] and len(asked) == 2  # it was replaced
    assert (tmp_path / "precious").read_text() == "mine"


def test_one_warning_for_many_damaged_entries(opened: Open, tmp_path: Path) -> None:
    asked: list[list[int]] = []
    _numbers(opened(), KEYS, asked)
    _change(tmp_path, "UPDATE Cache SET value = x'00' WHERE rowid > 1")
    cache = opened()
    with pytest.warns(UserWarning, match="an entry is damaged") as told:
        assert [_numbers(cache, [key], asked) for key in KEYS] == [[0], [10], [20], [30]]
    assert len(told) == 1 and asked[1:] == [[0]] * 3


def test_bits_that_flip_on_the_disk(opened: Open, tmp_path: Path) -> None:
    model = Counting()
    cache = opened()
    expected = _rows(CachedModel(model, cache, "").generate(INPUTS[:1], SEARCH))
    cache.close()
    path = tmp_path / "cache" / "cache.db"
    content = path.read_bytes()
    some = pack_hypotheses(model.inner.generate(INPUTS[:1], SEARCH)[0])[-40:]
    assert content.count(some) == 1
    path.write_bytes(content.replace(some, some[:-1] + bytes([some[-1] ^ 1])))
    with pytest.warns(UserWarning, match="its checksum differs"):
        assert _rows(CachedModel(model, opened(), "").generate(INPUTS[:1], SEARCH)) == expected
    assert model.asked == [1, 1]


def test_a_file_damaged_while_in_use_stops_nothing(opened: Open, tmp_path: Path) -> None:
    cache, asked = opened(), list[list[int]]()
    _numbers(cache, KEYS, asked)
    _change(tmp_path, "DROP TABLE Cache")
    with pytest.warns(UserWarning, match=r"the file cannot be used \(OperationalError: no such table: Cache\)") as told:
        assert _numbers(cache, KEYS, asked) == [0, 10, 20, 30] == _numbers(cache, KEYS, asked)
    assert len(told) == 1


def test_21_c20_a_locked_file_is_waited_for_once(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_file, "_TIMEOUT", 0.01)
    cache, asked = opened(), list[list[int]]()
    _numbers(cache, KEYS[:1], asked)
    begun: list[int] = []
    transact = cache._store.transact
    monkeypatch.setattr(cache._store, "transact", lambda: begun.append(1) or transact())
    holder = sqlite3.connect(tmp_path / "cache" / "cache.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.warns(UserWarning, match="another process locks the file, so the file is not used for 10 min") as told:
        values = [_numbers(cache, KEYS, asked) for _ in range(3)]
    assert values == [[0, 10, 20, 30]] * 3 and len(told) == 1 and len(begun) == 1 and len(asked) == 4
    holder.execute("ROLLBACK")
    holder.close()
    monkeypatch.setattr(cache, "_paused_until", 0.0)  # ten minutes later
    assert _numbers(cache, KEYS, asked) == [0, 10, 20, 30] == _numbers(cache, KEYS, asked)
    assert asked[4:] == [[1, 2, 3]]


ENDLESS = "CREATE VIEW endless AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"


@pytest.mark.parametrize("event", ["UPDATE OF access_time", "INSERT", "UPDATE OF value"])
def test_21_c20_a_planted_trigger_is_stopped(
    event: str, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, asked = opened(), list[list[int]]()
    _numbers(cache, KEYS[:1], asked)
    _change(tmp_path, ENDLESS)
    _change(tmp_path, f"CREATE TRIGGER slow AFTER {event} ON Cache BEGIN SELECT count(*) FROM endless; END")
    if event == "UPDATE OF value":
        _change(tmp_path, "UPDATE Cache SET key = key")  # fires nothing
        _change(tmp_path, "DROP TRIGGER slow")
        _change(tmp_path, "UPDATE Cache SET value = x'00'")  # the damaged entry is written anew
        _change(tmp_path, f"CREATE TRIGGER slow AFTER {event} ON Cache BEGIN SELECT count(*) FROM endless; END")
    monkeypatch.setattr(cache_file, "_LONGEST", 0.2)
    with pytest.warns(UserWarning, match="takes more than 0 seconds, so the file is not used|damaged"):
        assert _numbers(cache, KEYS, asked) == [0, 10, 20, 30] == _numbers(cache, KEYS, asked)
    assert cache._paused_until > 0


def test_21_c20_a_trigger_that_runs_when_the_file_is_opened(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().close()
    _change(tmp_path, ENDLESS)
    _change(tmp_path, "CREATE TRIGGER slow AFTER UPDATE ON Settings BEGIN SELECT count(*) FROM endless; END")
    monkeypatch.setattr(cache_file, "_LONGEST", 0.2)
    with pytest.raises(OSError, match="must be a folder to write to, empty or made by this package"):
        opened()


def test_21_c20_a_huge_entry_is_not_read(opened: Open, tmp_path: Path) -> None:
    """Its checksum is right: the entry is refused for its size alone, and replaced."""
    model = Counting()
    cache = opened(2**30)
    expected = _rows(CachedModel(model, cache, "").generate(INPUTS[:1], SEARCH))
    ((key,),) = cache._store._sql("SELECT key FROM Cache").fetchall()
    count = 4 * 2**20
    payload = np.array([count, *[0] * count], "<u4").tobytes() + bytes(count)  # so many hypotheses without a token
    data = cache_file._seal(key, payload)
    cache.close()
    with sqlite3.connect(tmp_path / "cache" / "cache.db") as connection:
        connection.execute("UPDATE Cache SET value = ?", (data,))
    connection.close()
    with pytest.warns(UserWarning, match="too big"):
        assert _rows(CachedModel(model, opened(2**30), "").generate(INPUTS[:1], SEARCH)) == expected
    assert model.asked == [1, 1]
    assert _rows(CachedModel(model, opened(2**30), "").generate(INPUTS[:1], SEARCH)) == expected
    assert model.asked == [1, 1]


@pytest.mark.skipif(os.name != "posix", reason="the system has no such modes")
def test_21_c20_the_folder_is_its_owners_alone(opened: Open, tmp_path: Path) -> None:
    opened()
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_a_file_of_somebody_else_runs_no_code(opened: Open, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "run"),)

    asked: list[list[int]] = []
    _numbers(opened(), KEYS, asked)
    poison = pickle.dumps(Evil())
    _change(tmp_path, f"UPDATE Cache SET mode = 4, value = x'{poison.hex()}'")
    with pytest.warns(UserWarning, match="an entry is damaged"):
        assert _numbers(opened(), KEYS, asked) == [0, 10, 20, 30]
    assert not (tmp_path / "run").exists()
    pickle.loads(poison)
    assert (tmp_path / "run").exists()  # it would have


@pytest.mark.parametrize("setting", ["('eviction_policy', 'none')", "('disk_min_file_size', 1)"])
def test_settings_of_somebody_else_change_nothing(setting: str, opened: Open, tmp_path: Path) -> None:
    opened().close()
    _change(tmp_path, f"INSERT OR REPLACE INTO Settings VALUES {setting}")
    cache, asked = opened(), list[list[int]]()
    assert _numbers(cache, KEYS, asked) == [0, 10, 20, 30] == _numbers(cache, KEYS, asked) and len(asked) == 1


@pytest.mark.parametrize("setting", ["('disk_x', 1)", "('directory', 'x')"])
def test_settings_that_cannot_be_are_refused(setting: str, opened: Open, tmp_path: Path) -> None:
    opened().close()
    _change(tmp_path, f"INSERT OR REPLACE INTO Settings VALUES {setting}")
    with pytest.raises(OSError, match="must be a folder to write to, empty or made by this package"):
        opened()


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "cache.db").write_text("Not a database, and long enough to be seen as none. " * 20)
    for name in ("file", "folder"):
        with pytest.raises(OSError, match=rf"cache '.*{name}': must be a folder .* Name another, or delete it") as told:
            ResultCache(tmp_path / name, SIZE)
        assert told.value.__cause__ is not None


def test_without_diskcache_the_command_is_named() -> None:
    program = (
        "import sys; sys.modules['diskcache'] = None\n"
        "try:\n    import qa_inference.cache\n"
        "except ImportError as error:\n    print(error, '|', type(error.__cause__).__name__)"
    )
    package = str(Path(cache_file.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == (
        "diskcache: must be installed for a cache. pip install 'quals-metric[cache]' | ModuleNotFoundError"
    )
