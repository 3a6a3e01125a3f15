"""The benchmark: its statistics, its schedule, its rows and what they cost, what it refuses, and one small run."""

from __future__ import annotations

import json
import math
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import Run

from jaccomp.benchmark import cases, instructions, measuring, process, suite, text, timing
from jaccomp.benchmark.cases import Cost
from jaccomp.benchmark.limits import Limit, Machine
from jaccomp.benchmark.numpy_peers import FORWARD, PULLED, Numpy
from jaccomp.benchmark.own import Own, Separate
from jaccomp.benchmark.peer import draw
from jaccomp.errors import BuildError, UsageError

KEYS = [
    "case", "mode", "threads", "allocator", "jaccomp_ms", "best_peer", "best_peer_ms", "ratio", "limit_fraction",
    "error", "best_peer_error",
]  # fmt: skip
ROWS = pytest.mark.parametrize("row", cases.ROWS, ids=lambda row: row.name)


class Clock:
    """Nanoseconds that go on by what each call is said to take."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def entry(name: str, clock: Clock, taken: int, log: list[str]) -> timing.Entry:
    def call() -> str:
        clock.now += taken
        log.append(name)
        return name

    return timing.Entry(name, call, lambda result: [np.ones(3)])


# timing


def test_rounds_begin_one_further_and_turn_around() -> None:
    assert timing.rotations("abc", 4) == [tuple(order) for order in ("abc", "acb", "cab", "cba")]
    assert timing.rotations("", 2) == [(), ()]


@pytest.mark.parametrize("names", ["ab", "abc", "abcdefg"])
def test_every_round_visits_each_once(names: str) -> None:
    assert all(sorted(order) == sorted(names) for order in timing.rotations(names))


def test_medians_are_of_at_least_fifteen_calls() -> None:
    assert timing.ROUNDS * timing.FEWEST >= 15
    assert timing.calls_a_visit(0.9, 0.1) == timing.FEWEST
    assert timing.calls_a_visit(1.1, 0.1) == 1  # but where a call is long
    assert timing.calls_a_visit(1e-9, 1.0) == timing.MOST
    assert timing.calls_a_visit(0.01, 0.21) == 20


def test_peers_are_interleaved_and_their_results_consumed() -> None:
    clock, log = Clock(), list[str]()
    entries = [entry("slow", clock, 8_000_000, log), entry("fast", clock, 2_000_000, log)]
    seen: list[str] = []
    timed = timing.measure(entries, seconds=0.3, clock=clock, check=lambda name, arrays: seen.append(name))
    assert (timed["slow"].median, timed["fast"].median) == (8.0, 2.0)
    assert seen == ["slow", "fast", "slow", "fast"]  # first results, and last ones
    assert [len(timed[name].milliseconds) for name in ("slow", "fast")] == [15, 5 * 14]
    assert timed["slow"].checksum == 3 * (1 + 5 + 15)
    visits = [name for name, before in zip(log[4:], ["", *log[4:]], strict=False) if name != before]
    assert len(visits) >= timing.ROUNDS  # no peer has all its calls in one go


def test_an_entry_that_fails_keeps_no_other_from_being_timed() -> None:
    def fails() -> None:
        raise ValueError("no such kernel\nmore")

    clock = Clock()
    timed = timing.measure(
        [timing.Entry("bad", fails, lambda result: []), entry("good", clock, 1000, [])], seconds=1e-3, clock=clock
    )
    assert timed["bad"].failure == "ValueError: no such kernel" and not timed["bad"].milliseconds
    assert timed["good"].median == 1e-3


def test_what_is_consumed_comes_from_all_of_an_array() -> None:
    array = np.zeros((64, 100))
    array[-1] = 1.0
    assert timing.consume([array]) > 0
    assert timing.consume([np.zeros((0, 3)), np.array(2.0)]) == 2.0


# rows


def test_words_choose_rows_whole_or_by_their_beginning() -> None:
    assert [row.name for row in cases.select(["softmax"])] == ["softmax [4096,1024]", "softmax [64,32000]"]
    assert [row.name for row in cases.select(["small", "linear 2048"])] == [
        "linear 2048",
        "small layernorm [8,64]",
        "small softmax [1,10]",
        "small linear [1,16]",
    ]
    assert cases.select([]) == cases.ROWS
    with pytest.raises(UsageError, match=r"'soft'.*no such row"):
        cases.select(["soft"])


@ROWS
@pytest.mark.parametrize("mode", cases.MODES)
def test_a_row_moves_no_more_than_its_arrays(row: cases.Row, mode: cases.Mode) -> None:
    for problem in (row.timed(), row.counted()):
        cost = problem.costs[mode]
        inputs = sum(one.bytes for one in problem.inputs)
        outputs = sum(one.bytes for one in problem.outputs)
        real = sum(problem.inputs[k].bytes for k in problem.real)
        read, written = (inputs, outputs) if mode == "forward" else (inputs + outputs, real)
        assert cost.read > 0 and cost.written == written
        if mode != "backward" or not problem.costs["forward"].flops:  # what lies between two products may be kept
            assert cost.read <= read
        assert (cost.flops > 0) == (row.kind == "product" or row.name == "small linear [1,16]")
        assert set(cost.calls) <= {"exp", "tanh", "erf", "log"}


def test_costs_are_those_of_the_textbook() -> None:
    problems = {row.name: row.timed() for row in cases.ROWS}
    rope = problems["rope [4,12,1024,64]"]
    assert rope.costs["vjp"].read == rope.costs["vjp"].written == 4 * 4 * 12 * 1024 * 64
    embedding = problems["embedding [50257,768]"].costs
    assert embedding["forward"].read == 8 * 4096 + 4 * 4096 * 768 and embedding["vjp"].written == 4 * 50257 * 768
    assert problems["linear 2048"].costs["forward"].flops == 2 * 2048**3
    attention = problems["causal_attention [4,12,1024,64]"].costs
    assert 2 * attention["vjp"].flops == 5 * attention["forward"].flops
    assert 2 * attention["forward"].flops == attention["backward"].flops
    assert attention["forward"].calls == {"exp": 48 * 1024 * 1025 // 2} and not attention["backward"].calls


@ROWS
def test_a_row_is_what_its_layer_takes_and_gives(row: cases.Row) -> None:
    problem = row.counted()
    layer = cases.layer_of(problem.operation)
    label = layer.program.labels.name
    assert [one.name for one in problem.inputs] == [label(name) for name in layer.program.inputs]
    assert {one.name for one in problem.outputs} <= {label(name) for name in layer.program.outputs}


@ROWS
@pytest.mark.parametrize("mode", cases.MODES)
def test_numpy_agrees_with_what_it_is_compared_to(row: cases.Row, mode: cases.Mode) -> None:
    torch_peers = pytest.importorskip("jaccomp.benchmark.torch_peers", exc_type=ImportError)
    given = draw(row.counted())
    if mode != "forward" and given.problem.operation not in PULLED:
        pytest.skip("not written")
    (one,) = Numpy().entries(given, mode)
    assert measuring.error_in_eps(one.arrays(one.call()), torch_peers.reference(given, mode)) < 100


def test_numpy_has_every_forward() -> None:
    assert set(FORWARD) == {row.counted().operation for row in cases.ROWS}
    assert set(PULLED) >= {"linear", "relu", "softmax", "layernorm", "mse"}


@pytest.mark.parametrize("mode", cases.MODES)
def test_a_chain_agrees_with_its_layers_one_by_one(mode: cases.Mode) -> None:
    (row,) = cases.select(["residual_layernorm"])
    given = draw(row.counted())
    (separate,) = Separate(1).entries(given, mode)
    expected = separate.arrays(separate.call())
    for one in Own(given.problem, 1).entries(given, mode):
        assert measuring.error_in_eps(one.arrays(one.call()), expected) < 30, one.name


# limits


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(1)


def test_a_limit_is_the_largest_of_three_times(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "product_rate", lambda self: 1e9)
    machine.rates = {"exp": 1e6, "log": 2e6}
    assert machine.limit(Cost(64, 64, flops=5_000_000)) == Limit(5.0, "flops")
    assert machine.limit(Cost(64, 64, 5_000_000, {"exp": 4000, "log": 4000})) == Limit(6.0, "calls")
    moved = machine.limit(Cost(1 << 20, 0))
    assert moved.by == "bytes" and 0 < moved.milliseconds < 50


def test_more_bytes_take_longer(machine: Machine) -> None:
    little, much = (machine.seconds_to_move(read, read // 2 + 1) for read in (1 << 20, 1 << 25))
    assert 0 < little < much
    assert machine.seconds_to_move(0, 1 << 22) > 0


# records


def timed(*milliseconds: float, failure: str = "") -> timing.Timed:
    return timing.Timed(list(milliseconds), 0.0, failure)


def test_the_fastest_way_of_each_peer_counts_and_wrong_ones_do_not() -> None:
    record = measuring.summary(
        "relu",
        "vjp",
        {
            "jaccomp/derived": timed(4, 4, 4),
            "jaccomp/pullback": timed(3, 2, 9),
            "jaccomp/derived out=": timed(2, 2, 2),
            "torch/0": timed(9),
            "torch/1": timed(6),
            "jax/0": timed(1),
            "numpy/0": timed(failure="MemoryError: "),
            "separate/0": timed(1),
        },
        dict.fromkeys(("jaccomp/derived", "jaccomp/pullback", "jaccomp/derived out=", "separate/0"), 2.0)
        | {"torch/0": 1.0, "torch/1": 3.0, "jax/0": math.inf},
        {"inductor": "ModuleNotFoundError: torch is not installed"},
        Limit(1.0, "bytes"),
    )
    assert record["jaccomp_ms"] == 3 and record["path"] == "pullback" and record["jaccomp_out_ms"] == 2
    assert record["best_peer"] == "torch" and record["best_peer_ms"] == 6 and record["ratio"] == 2
    assert record["limit_fraction"] == 0.5 and record["error"] == 2 and record["best_peer_error"] == 3
    assert record["peers"] == {"torch": 6, "separate": 1} and record["refused"] == {
        "inductor": "ModuleNotFoundError: torch is not installed",
        "jax": "its result is inf eps from float64's",
        "numpy": "MemoryError: ",
    }


def test_a_record_without_peers_or_kernel_has_no_ratio() -> None:
    record = measuring.summary("relu", "forward", {}, {}, {"jaccomp": "BuildError: no compiler"}, None)
    assert record["jaccomp_ms"] is record["ratio"] is record["limit_fraction"] is record["best_peer"] is None


def test_an_error_is_relative_to_the_largest_value() -> None:
    eps = float(np.finfo(np.float32).eps)
    assert measuring.error_in_eps([np.array([4.0, 4 * eps])], [np.array([4.0, 0.0])]) == 1.0
    assert measuring.error_in_eps([np.array([1.0])], [np.array([1.0, 2.0])]) == math.inf
    assert measuring.error_in_eps([np.array([np.nan])], [np.array([1.0])]) == math.inf
    assert measuring.error_in_eps([np.array([])], [np.array([])]) == 0.0


def record(case: str, ratio: float | None, **more: object) -> dict[str, object]:
    kept = {"threads": 1, "allocator": "keep", "mode": "forward", "kind": "memory", "best_peer": "jax"}
    return {**kept, "case": case, "ratio": ratio, "jaccomp_ms": 1.0, "limit_fraction": 0.5, **more}


def test_means_are_geometric_and_misses_are_named() -> None:
    records = [
        record("relu [64,4096]", 4.0),
        record("mse [4096,1024]", 0.25, limit_fraction=0.125, refused={"torch": "RuntimeError: no"}),
        record("linear_gelu [64,4096]", 2.0, kind="product", peers={"separate": 0.5}),
        record("gelu [64,4096]", None, error=9.0, best_peer_error=0.5, limit_fraction=None),
        record("silu [64,4096]", None, error=9.0, best_peer_error=9.0, limit_fraction=None),
        record("rope [4,12,1024,64]", None, error=3.9, best_peer_error=0.5, limit_fraction=None),
    ]
    printed = text.table_text(records)
    assert "memory-bound rows, forward: ratio 1.00, limit 0.25" in printed
    assert "misses: mse [4096,1024] forward: 0.25 of jax" in printed
    assert "misses: linear_gelu [64,4096] forward: 0.50 of its layers one by one" in printed
    assert "no torch on mse [4096,1024] forward: RuntimeError: no" in printed
    assert "misses: gelu [64,4096] forward: error 9 eps, a peer's 0.5" in printed
    assert not any(f"misses: {name}" in printed for name in ("relu", "silu", "rope"))


def test_who_failed_for_one_reason_is_named_once() -> None:
    missing = {"refused": {"jax": "ModuleNotFoundError: jax is not installed", "numpy": text.EXPECTED[1]}}
    records = [record(name, None, **missing) for name in "abcde"]
    assert text.refusals(records) == [
        "no jax on a forward, b forward, c forward and 2 more: ModuleNotFoundError: jax is not installed"
    ]


def test_the_readmes_table_has_a_column_for_each_configuration(run: Run, tmp_path: Path) -> None:
    stored = tmp_path / "run.jsonl"
    events = [
        {"about": {"cpu": "a CPU", "versions": {"jax": "1"}}},
        {"row": record("relu [64,4096]", 9.0)},
        {"row": record("relu [64,4096]", 2.0)},
        {"row": record("relu [64,4096]", 0.5, mode="vjp")},
    ]
    stored.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    code, out, _ = run("bench", "--suite", "core", "--markdown", stored)
    assert code == 0 and out.splitlines() == [
        "| forward / vjp / backward | 1 thread, keep | limit, 1 thread, keep |",
        "| --- | --- | --- |",
        "| relu [64,4096] | 2.00 / 0.50 / - | 0.50 / 0.50 / - |",
        "| *geometric mean, memory-bound rows* | 2.00 / 0.50 / - | 0.50 / 0.50 / - |",
        "",
        "Measured on a CPU: jax 1.",
    ]
    assert run("bench", "--suite", "core", "--markdown", tmp_path / "none")[0] == 2


# processes and the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--peers", "torch,keras"], "--peers 'keras': there is no such thing."),
        (["--modes", "jvp"], "--modes 'jvp': there is no such thing."),
        (["--allocator", "arena"], "--allocator 'arena': there is no such thing."),
        (["--threads", "two"], "--threads 'two': it is not a whole number."),
        (["--threads", "0"], "--threads 0: this process may use"),
        (["--threads", "100000"], "--threads 100000: this process may use"),
        (["--seconds", "0"], "--seconds 0.0: it is not a positive number."),
        (["--against", "counts.json"], "bench --against: it is what counts are compared with."),
        (["--suite", "latency", "--peers", "jax"], "bench --peers: it belongs to the core suite."),
        (["sofmax"], "row 'sofmax': the core suite has no such row."),
    ],
)
def test_what_the_core_suite_does_not_have_is_refused(run: Run, words: list[str], said: str) -> None:
    code, out, err = run("bench", "--suite", "core", *words)
    assert code == 2 and out == "" and said in err


def test_pools_of_a_process_that_measures_have_its_threads() -> None:
    made = process.environment(2, {"OPENBLAS_CORETYPE": "HASWELL", "OPENBLAS_L2_SIZE": "1", "HOME": "/"})
    assert made["HOME"] == "/" and made["OMP_NUM_THREADS"] == made["OPENBLAS_NUM_THREADS"] == "2"
    assert "OPENBLAS_CORETYPE" not in made and "OPENBLAS_L2_SIZE" not in made


KEPT = """
import resource
from jaccomp.benchmark import process
print(process.settle(1, "keep"), process.available())
import numpy as np
def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(megabytes << 17)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(256), faults(256))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator that keeps pages")
def test_the_allocator_keeps_its_pages_and_the_process_its_processor() -> None:
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    said, faults = done.stdout.splitlines()
    first, again = map(int, faults.split())
    assert said == "keep 1" and again < 100 < first


def test_a_configuration_is_a_pair() -> None:
    assert suite.configurations([1], ["keep", "default"]) == (
        suite.Configuration(1, "keep"),
        suite.Configuration(1, "default"),
    )


def test_a_small_run_measures_what_it_says(run: Run, tmp_path: Path) -> None:
    stored = tmp_path / "run.jsonl"
    words = ["--peers", "numpy", "--seconds", "0.01", "--allocator", "keep", "--json", "--output", stored]
    code, out, _ = run("bench", "--suite", "core", "small softmax [1,10]", *words)
    records = json.loads(out)
    assert code == 0 and [one["mode"] for one in records] == list(cases.MODES)
    for one in records:
        assert set(KEYS) <= set(one) and one["best_peer"] == "numpy" and one["jaccomp_ms"] > 0
        assert one["error"] < 8 and one["samples"] >= 15 and one["refused"] == {}
        assert one["threads"] == 1 and one["allocator"] == "keep" and one["limit_fraction"] is None
    events = [json.loads(line) for line in stored.read_text().splitlines()]
    assert [next(iter(event)) for event in events] == ["about", "row", "row", "row"]
    assert events[0]["about"]["versions"]["numpy"] == np.__version__
    assert [event["row"] for event in events[1:]] == records


def test_a_process_that_dies_takes_one_row_with_it_and_none_outlives_its_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [
        ([("about", {}), ("begins", "a"), ("row", {"case": "a"}), ("begins", "b")], -11),
        ([("about", {}), ("begins", "c"), ("row", {"case": "c"})], 0),
    ]

    class Child:
        def __init__(self) -> None:
            self.events, self.code = runs.pop(0)

        def __enter__(self) -> Child:
            return self

        def __exit__(self, *_: object) -> None: ...

        def wait(self) -> int:
            return self.code

        def kill(self) -> None:
            killed.append(self)

    asked: list[object] = []
    killed: list[Child] = []
    monkeypatch.setattr(suite, "_child", lambda configuration: Child())
    monkeypatch.setattr(
        suite, "_send", lambda child, plan, configuration, todo: asked.append([name for name, _ in todo])
    )
    monkeypatch.setattr(suite, "_events", lambda child: child.events)
    plan = suite.Plan(cases.ROWS[:3], ("forward",))
    found = list(suite.measured(plan, suite.Configuration(1, "keep"), lambda what: None))
    assert [kind for kind, _ in found] == ["about", "row", "row", "row"]
    assert asked == [[row.name for row in plan.rows], [plan.rows[2].name]]
    assert found[2][1]["case"] == plan.rows[1].name and "ended with -11" in found[2][1]["refused"]["all"]

    runs += [([("about", {}), ("row", {"case": "a"})], 0)]
    stopped = suite.measured(plan, suite.Configuration(1, "keep"), lambda what: None)
    assert next(iter(stopped)) == ("about", {}) and not killed
    stopped.close()
    assert len(killed) == 1


# instructions


def test_the_instructions_of_a_call_are_the_difference_of_two_parts() -> None:
    totals = [9000, 2 * 50 + 7, 6 * 50 + 7, 800, 2 * 10 + 7, 6 * 10 + 7]
    assert instructions.of_calls(totals, 2) == [50, 10]
    with pytest.raises(BuildError, match="wrote 5 parts, not 6"):
        instructions.of_calls(totals[:5], 2)


def test_a_row_that_grew_or_is_new_is_named() -> None:
    def counts(*numbers: int) -> list[dict[str, object]]:
        return [{"case": f"row {k}", "mode": "vjp", "instructions": count} for k, count in enumerate(numbers)]

    assert instructions.grown(counts(102, 90), counts(100, 100)) == []
    assert instructions.grown(counts(1100, 90, 5), counts(1000, 100)) == [
        "row 0 vjp: 1,100 instructions, +10.0%",
        "row 2 vjp: not in the stored run",
    ]


def test_counting_says_what_it_needs(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    code, _, err = run("bench", "--suite", "core", "--instructions", "small")
    assert code == 2 and "valgrind is not on PATH." in err and "apt-get install valgrind" in err
    code, _, err = run("bench", "--suite", "core", "--instructions", "--against", tmp_path / "none")
    assert code == 2 and "it holds no counts" in err


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="it counts by valgrind")
def test_counts_are_repeatable_and_a_run_that_grew_fails(run: Run, tmp_path: Path) -> None:
    words = ("bench", "--suite", "core", "--instructions", "--modes", "forward", "small softmax [1,10]")
    code, out, _ = run(*words, "--json")
    (one,) = json.loads(out)
    assert code == 0 and one["case"] == "small softmax [1,10]" and 100 < one["instructions"] < 1_000_000
    stored = tmp_path / "counts.json"
    stored.write_text(json.dumps([{**one, "instructions": one["instructions"] // 2}]))
    code, out, err = run(*words, "--json", "--against", stored)
    assert code == 1 and "grew: small softmax [1,10] forward" in err
    assert json.loads(out)[0]["instructions"] == pytest.approx(one["instructions"], rel=0.02)
