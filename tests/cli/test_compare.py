"""Comparisons of values, releases and flags, as tables, sentences and charts."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.cells import cell_len

from wherefrom import keys
from wherefrom.analysis import compare
from wherefrom.stores import open_store
from wherefrom.web.charts import draw

from .conftest import (
    HOSTILE,
    Result,
    is_harmless,
    make_release,
    make_trace,
    on_terminal,
    read_rest,
    run,
)

Write = Callable[..., None]

ALL_COLUMNS = [
    "app_version", "first seen", "last seen", "traces", "per hour", "errors", "error rate", "interval", "p50",
    "p95", "p99", "error diff", "p errors", "p95 diff", "p latency", "tokens", "against", "verdict",
]  # fmt: skip


def cells(line: str) -> list[str]:
    return [cell for cell in line.split("  ") if cell]


def columns(result: Result) -> list[str]:
    return [cell.strip() for cell in cells(result.lines[0])]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.1.0 fails more often than 1.0.0, 1.2.0 is faster, of 1.3.0 there is little."""
    path = tmp_path_factory.mktemp("releases") / "wherefrom.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.write(
            [
                *make_release("1.0.0", 200, errors=4),
                *make_release("1.1.0", 200, first=200, errors=40),
                *make_release("1.2.0", 200, first=400, errors=4, ms=50),
                *make_release("1.3.0", 5, first=600),
            ]
        )
    return path


@pytest.fixture
def releases(written: Path, file: Path) -> None:
    shutil.copy(written, file)


@pytest.mark.usefixtures("releases")
def test_each_value_has_its_row_and_its_verdict() -> None:
    result = run("compare", width=80)
    assert result.code == 0
    assert result.lines[0].split()[0] == "app_version"
    rows = {line.split()[0]: line for line in result.lines[1:5]}
    assert list(rows) == ["1.0.0", "1.1.0", "1.2.0", "1.3.0"]
    assert rows["1.0.0"].endswith("baseline")
    assert rows["1.1.0"].endswith("✗ worse")
    assert rows["1.2.0"].endswith("✓ better")
    assert rows["1.3.0"].endswith("too few traces")
    assert "20.0 %  15.0\N{EN DASH}26.1" in rows["1.1.0"]


@pytest.mark.usefixtures("releases")
def test_the_verdicts_stand_below_in_whole_sentences() -> None:
    text = " ".join(run("compare", width=80).out.split())
    assert ", is worse than 1.0.0: error rate 20.0 % against 2.0 % (+18.0 points, 95 % CI " in text
    assert "1.1.0, first seen " in text
    assert "1.2.0 is better than 1.0.0: faster: p50 " in text
    assert "Too few traces to judge 1.3.0 against 1.0.0: 5 and 200 traces, but 30 of each are needed." in text
    assert "95 % confidence intervals. p-values are corrected for 6 tests (Holm)." in text


@pytest.mark.usefixtures("releases")
def test_the_baseline_is_chosen() -> None:
    result = run("compare", "--baseline", "1.1.0", "--where", "metadata.app_version IN ('1.0.0', '1.1.0')")
    assert [line.split()[0] for line in result.lines[1:3]] == ["1.0.0", "1.1.0"]
    assert "1.0.0 is better than 1.1.0" in result.out


@pytest.mark.usefixtures("releases")
def test_a_value_alone_has_nothing_to_be_compared_with() -> None:
    result = run("compare", "--by", "user", "--baseline", "alice")
    assert result.lines[1].split()[-1] == "baseline"
    assert "worse" not in result.out


def test_values_that_are_alike_are_told_one_by_one_only_while_they_are_few(write: Write) -> None:
    names = [f"GET /{letter}" for letter in "abcdefgh"]
    for at, name in enumerate(names):
        write(*make_release("1", 40, first=at * 40, name=name))
    few = run("compare", "--by", "name", "--where", "name IN ('GET /a', 'GET /b')").out
    assert (
        "No difference seen between GET /b and GET /a: error rate 0.0 % against 0.0 %"
        " (+0.0 points, 95 % CI -8.8 to 8.8), p = 1"
    ) in few
    many = " ".join(run("compare", "--by", "name").out.split())
    assert "No difference seen for GET /h, GET /g, GET /f, GET /e, GET /d, GET /c and GET /b." in many


def test_many_verdicts_are_cut_short(write: Write) -> None:
    write(*make_release("0", 40))
    for at in range(1, 8):
        write(*make_release(str(at), 40, first=at * 40, errors=40))
    result = run("compare")
    assert result.out.count("is worse than 0") == 4
    assert "Also worse: 3, 2 and 1." in result.out


@pytest.mark.usefixtures("releases")
@pytest.mark.parametrize("width", [60, 80, 100, 120, 140, 160, 200, 300])
def test_more_columns_come_with_more_room(width: int) -> None:
    shown = columns(run("compare", width=width))
    assert {"app_version", "traces", "error rate", "verdict"} <= set(shown)
    assert shown == [name for name in ALL_COLUMNS if name in shown]
    assert all(cell_len(line) <= width for line in run("compare", width=width).lines)
    if width >= 80:
        assert {"interval", "p50", "p95"} <= set(shown)
    if width >= 140:
        assert {"errors", "p99", "error diff", "p errors", "p95 diff", "p latency"} <= set(shown)


@pytest.mark.usefixtures("releases")
def test_in_a_pipe_everything_is_there_in_full() -> None:
    result = run("compare")
    assert columns(result) == ALL_COLUMNS
    first = result.lines[1].split()
    assert datetime.fromisoformat(first[1]).timestamp() == 1_790_000_000
    second = cells(result.lines[2])
    assert "+18.0 pp" in result.lines[2]
    assert "<0.0001" in result.lines[2]
    assert second[-1].strip() == "✗ worse"


def test_what_traces_do_not_tell_is_blank(write: Write) -> None:
    write(make_trace(1, execution_duration=None, spans=[]))
    result = run("compare")
    assert result.lines[1].split()[3:6] == ["1", "0", "0.0"]
    assert "Too few" not in result.out


def test_tokens_and_rates_are_told_where_they_are_known(write: Write) -> None:
    usage = json.dumps({"input_tokens": 10, "output_tokens": 2, "total_tokens": 12})
    write(*make_release("1", 3, metadata={keys.TOKEN_USAGE: usage}))
    result = run("compare")
    line = result.lines[1]
    assert " 5,400 " in line
    assert " 36 " in line
    assert columns(result) == [*ALL_COLUMNS[:16], "tokens each", *ALL_COLUMNS[16:]]
    assert " 12.0 " in line


def test_small_rates_keep_the_digits_that_they_take(write: Write) -> None:
    write(*make_release("1", 2000, errors=1))
    assert "0.05 %  0.0088\N{EN DASH}0.28" in run("compare").out


def test_traces_without_the_key_are_counted(write: Write) -> None:
    write(make_trace(1, metadata={"team": "a"}), make_trace(2))
    assert "1 trace without team is left out." in run("compare", "--by", "team").out
    write(make_trace(3))
    assert "2 traces without team are left out." in run("compare", "--by", "team").out


def test_values_beyond_a_hundred_are_counted(write: Write) -> None:
    write(*(make_trace(number, name=f"GET /{number}") for number in range(103)))
    result = run("compare", "--by", "name")
    assert "3 values with fewer traces left out." in result.out


@pytest.mark.usefixtures("releases")
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("compare", "tags.tier = 'x'"), ["No trace carries tag.tier."]),
        (("compare", "status = 'OK'", "--experiment", "nope"), ["No trace in experiment 'nope' matches"]),
        (("versions", "--experiment", "nope"), ["There are no traces in experiment 'nope' to compare"]),
        (
            ("compare", "metadata.app_versoin = '1.1.0'"),
            [
                "No trace carries metadata.app_versoin; did you mean metadata.app_version?",
                "wherefrom compare --by app_version ",
            ],
        ),
        (
            ("versions", "metadata.app_versoin = '1.1.0'", "--by", "region"),
            ["did you mean metadata.app_version?", "wherefrom versions --by region "],
        ),
        (
            ("compare", "status = 'OK'", "--where", "metadata.app_version = '1.1.O'"),
            ["No trace has metadata.app_version = '1.1.O'", "1.1.0"],
        ),
    ],
)
def test_what_is_wrong_with_a_filter_that_finds_nothing(args: tuple[str, ...], said: list[str]) -> None:
    result = run(*args)
    assert (result.code, result.out) == (0, "")
    assert [one for one in said if one not in result.err] == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "There are no traces to compare by app_version"),
        (("--where", "status = 'ERROR'"), "No trace matches this filter"),
    ],
)
def test_nothing_to_compare_is_said(write: Write, args: tuple[str, ...], said: str) -> None:
    write()
    result = run("compare", *args)
    assert (result.code, result.out) == (0, "")
    assert said in result.err
    assert json.loads(run("compare", "--json", *args).out)["rows"] == []


def test_traces_that_all_lack_the_key_leave_nothing_to_compare(write: Write) -> None:
    write(make_trace(1, metadata={"team": "a"}), make_trace(2))
    result = run("compare", "--by", "team", "--where", "client_request_id = 'req-2'", "--plot", "no.svg")
    assert "1 trace found, none with team: there is nothing to compare." in result.err
    assert not Path("no.svg").exists()


@pytest.mark.usefixtures("releases")
def test_json_has_every_figure() -> None:
    result = run("compare", "--json")
    found = json.loads(result.out)
    assert [row["verdict"] for row in found["rows"]] == [None, "worse", "better", "too few traces"]
    assert found["rows"][1]["error_rate"] == 0.2
    assert found["rows"][1]["error_difference"]["p_adjusted"] < 0.0001
    assert (result.code, result.err) == (0, "")


@pytest.mark.usefixtures("releases")
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--by", "app_versoin"), "did you mean app_version?"),
        (("--baseline", "1.0"), "did you mean 1."),
        (("--where", "status == 'OK'"), "did you mean =?"),
        (("--by", "timestamp"), "cannot be compared by timestamp"),
    ],
)
def test_what_cannot_be_read_is_exit_code_2(args: tuple[str, ...], said: str) -> None:
    result = run("compare", *args)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("wherefrom: ")
    assert said in result.err


def test_values_of_strangers_do_no_harm(write: Write, tmp_path: Path) -> None:
    write(
        *make_release("1", 40, name=HOSTILE), *make_release("1", 40, first=40, errors=40, name="x" + HOSTILE)
    )
    for width in (None, 80, 140):
        assert is_harmless(run("compare", "--by", "name", width=width).out)
    result = run("compare", "--by", "name", "--plot", str(tmp_path / "a\x1b[2J.svg"))
    assert is_harmless(result.err)
    assert json.loads(run("compare", "--by", "name", "--json").out)["rows"][0]["value"] == HOSTILE


def test_an_experiment_is_compared_alone(write: Write) -> None:
    write(make_trace(1, experiment="shop"), make_trace(2, experiment="bank"))
    found = json.loads(run("compare", "--experiment", "shop", "--json").out)
    assert [row["traces"] for row in found["rows"]] == [1]


def look(*args: str) -> str:
    """What a person sees on a terminal, without colours."""
    shown = run(*args, width=200)
    assert shown.code == 0
    return shown.out + shown.err


@pytest.mark.usefixtures("releases")
def test_a_person_is_told_where_to_look(is_read_by_a_person: None) -> None:
    condition = "metadata.app_version = '1.1.0' AND status = 'ERROR'"
    process, terminal = on_terminal("compare", columns=200)
    assert f'wherefrom search "{condition}"' in read_rest(terminal).decode()
    assert process.wait(30) == 0
    assert f'wherefrom search "{condition}"' in look("compare")
    assert f"wherefrom search \"name != 'x' AND {condition}\"" not in look(
        "compare", "--where", "name != 'x'"
    )
    assert f"wherefrom search \"name LIKE 'G%' AND {condition}\"" in look(
        "compare", "--where", "name LIKE 'G%'"
    )


def test_what_is_slower_is_looked_for_by_its_duration(write: Write, is_read_by_a_person: None) -> None:
    write(*make_release("1", 60), *make_release("2", 60, first=60, ms=900))
    shown = look("compare")
    assert "wherefrom search \"metadata.app_version = '2'\" --order-by 'execution_time_ms DESC'" in shown


def test_nothing_is_named_where_no_filter_asks_for_it(write: Write, is_read_by_a_person: None) -> None:
    write(*make_release("1", 60, experiment="a"))
    write(*make_release("1", 60, first=60, ms=900, experiment="b"))
    shown = look("compare", "--by", "experiment")
    assert "is worse than a" in shown
    assert "The traces:" not in shown


def test_ctrl_c_is_quiet(write: Write) -> None:
    write(*make_release("1", 60))
    process, terminal = on_terminal("compare")
    process.send_signal(signal.SIGINT)
    read_rest(terminal)
    assert process.wait(10) in {0, 130, -signal.SIGINT}


@pytest.fixture
def regressed_releases(write: Write) -> None:
    """1.1.0 was bad, 1.1.1 put it right."""
    write(
        *make_release("1.0.0", 200, errors=4),
        *make_release("1.1.0", 200, first=200, errors=40),
        *make_release("1.1.1", 200, first=400, errors=4),
    )


@pytest.mark.usefixtures("regressed_releases")
def test_each_release_is_compared_with_the_one_before() -> None:
    result = run("versions", width=140)
    assert result.code == 0
    titles = result.lines[0]
    assert titles.index("first seen") < titles.index("traces") < titles.index("against")
    assert [line.split()[0] for line in result.lines[1:4]] == ["1.0.0", "1.1.0", "1.1.1"]
    assert result.lines[2].split()[-3:] == ["1.0.0", "✗", "worse"]
    assert result.lines[3].split()[-3:] == ["1.1.0", "✓", "better"]
    assert "It got worse with 1.1.0 and better again with 1.1.1." in result.out


def test_what_has_not_become_better_is_said(write: Write) -> None:
    write(*make_release("1.0.0", 200, errors=4), *make_release("1.1.0", 200, first=200, errors=40))
    assert "It got worse with 1.1.0, and no later release made it better." in run("versions").out


@pytest.mark.usefixtures("regressed_releases")
def test_json_names_the_regressions() -> None:
    found = json.loads(run("versions", "--json").out)
    assert [(one["began"], one["after"], one["ended"]) for one in found["regressions"]] == [
        ("1.1.0", "1.0.0", "1.1.1")
    ]


@pytest.mark.usefixtures("regressed_releases")
def test_80_columns_hold_when_a_release_came() -> None:
    lines = run("versions", width=80).lines
    assert "first seen" in lines[0]
    assert all(len(line) <= 80 for line in lines)


def test_releases_may_be_commits(write: Write) -> None:
    write(make_trace(1, metadata={keys.GIT_COMMIT: "abc"}), make_trace(2, metadata={keys.GIT_COMMIT: "def"}))
    result = run("versions", "--by", keys.GIT_COMMIT)
    assert [line.split()[0] for line in result.lines[1:3]] == ["abc", "def"]


@pytest.mark.usefixtures("regressed_releases")
def test_the_filter_and_the_experiment_are_passed_on() -> None:
    assert len(json.loads(run("versions", "--where", "status = 'ERROR'", "--json").out)["rows"]) == 3
    assert json.loads(run("versions", "--experiment", "none", "--json").out)["rows"] == []


@pytest.fixture
def flags(write: Write) -> None:
    write(
        *make_release("1", 100, metadata={"feature_flag_new_retriever": "true"}, ms=200),
        *make_release("1", 100, first=100, metadata={"feature_flag_new_retriever": "false"}),
    )


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("name", ["new_retriever", "feature_flag_new_retriever"])
def test_on_is_compared_with_off(name: str) -> None:
    result = run("flag", name)
    assert result.code == 0
    assert "feature_flag_new_retriever" in result.lines[0]
    assert result.lines[2].endswith("baseline")
    assert ", is worse than false: slower: p50 " in result.out


@pytest.mark.usefixtures("flags")
def test_json_of_a_flag() -> None:
    found = json.loads(run("flag", "new_retriever", "--where", "status = 'OK'", "--json").out)
    assert (found["baseline"], [row["value"] for row in found["rows"]]) == ("false", ["true", "false"])


@pytest.mark.usefixtures("flags")
def test_an_unknown_flag_is_answered_with_the_nearest() -> None:
    result = run("flag", "new_retreiver")
    assert result.code == 2
    assert "did you mean feature_flag_new_retriever?" in result.err


SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture
def plot(tmp_path: Path) -> Path:
    return tmp_path / "plot.svg"


def test_a_plot_tells_what_the_table_tells(write: Write, plot: Path) -> None:
    write(*make_release("1.0.0", 100), *make_release("1.1.0", 100, first=100, errors=50), make_trace(999))
    result = run("compare", "--plot", str(plot), "--where", "client_request_id != 'req-999'")
    assert result.code == 0
    assert result.err == f"Chart written to {plot}.\n"
    assert [path.name for path in plot.parent.iterdir() if "wherefrom.db" not in path.name] == ["plot.svg"]
    shown = texts(plot.read_text())
    assert "Traces by app_version: 1.1.0 is worse than 1.0.0" in shown
    assert any(
        text.startswith("1.1.0 is worse than 1.0.0: error rate 50.0 % against 0.0 %") for text in shown
    )
    assert "200 traces where client_request_id != 'req-999'" in shown
    assert shown.index("1.0.0") < shown.index("baseline") < shown.index("1.1.0") < shown.index("▲ worse")
    assert "100 traces, 50 errors" in shown
    assert {"0 %", "60 %", "0 ms", "Latency by app_version"} <= set(shown)
    assert "Requests ↑ and error rate ↓ by app_version, times in UTC" in shown


def test_a_plot_needs_nothing_else_to_be_looked_at(write: Write, plot: Path) -> None:
    write(*make_release("1.0.0", 100))
    run("versions", "--plot", str(plot))
    root = ET.fromstring(plot.read_text())
    assert root.tag == f"{SVG}svg"
    background = root.find(f"{SVG}rect")
    assert background is not None
    assert background.get("fill") == "#ffffff"
    assert "href" not in plot.read_text()


def test_values_of_strangers_are_only_text(write: Write, plot: Path) -> None:
    value = HOSTILE + "</text><script>alert(1)</script>&amp;\ufffe\x00"
    write(make_trace(1, name=value), make_trace(2, name="{title}"), make_trace(3, name="y" * 100))
    run(
        "compare", "--by", "name", "--plot", str(plot), "--where", f"name != '{HOSTILE.replace(chr(39), '')}'"
    )
    svg = plot.read_text()
    assert is_harmless(svg)
    root = ET.fromstring(svg)
    assert not list(root.iter(f"{SVG}script"))
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert any("</text><script>" in (title or "") for title in titles)
    assert any("{title}" in (title or "") for title in titles)
    assert "y" * 25 + "…" in texts(svg)


def test_what_is_left_out_is_noted(write: Write, plot: Path) -> None:
    write(*(make_trace(number, name=f"GET /{number}", experiment="shop") for number in range(101)))
    trace = make_trace(999, experiment="shop")
    trace.info.tags.clear()
    write(trace)
    run("compare", "--by", "name", "--experiment", "shop", "--plot", str(plot))
    note = texts(plot.read_text())[-1]
    assert note == (
        "verdicts at a corrected p-value below 0.05; 1 trace without name excluded;"
        " 1 value with fewer traces excluded"
    )
    assert "100 traces in shop" in texts(plot.read_text())


def test_traces_without_a_duration_have_no_latency(write: Write, file: Path) -> None:
    write(make_trace(1, execution_duration=None, spans=[]))
    found = compare(store=open_store(f"sqlite:///{file}"))
    assert "<path" not in draw(found)


def test_a_plot_that_cannot_be_written_is_one_sentence(write: Write, tmp_path: Path, file: Path) -> None:
    write(*make_release("1.0.0", 3))
    before = file.read_bytes()
    for path, said in (
        (tmp_path / "no" / "plot.svg", "No such file or directory"),
        (file, "is the store itself"),
    ):
        result = run("compare", "--plot", str(path))
        assert result.code == 1
        assert said in result.err
    assert file.read_bytes() == before


def test_latencies_far_apart_are_drawn_with_units(write: Write, plot: Path) -> None:
    write(make_trace(1, execution_duration=2, spans=[]), make_trace(2, execution_duration=90_000, spans=[]))
    run("compare", "--by", "client_request_id", "--plot", str(plot))
    assert {"1 ms", "100 ms", "10 s"} <= set(texts(plot.read_text()))


def test_a_name_that_ends_so_is_drawn_in_pixels(write: Write, tmp_path: Path) -> None:
    write(*make_release("1.0.0", 40))
    plot = tmp_path / "releases.PNG"
    assert run("versions", "--plot", str(plot)).code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_plot_marks_what_was_deployed(write: Write, plot: Path) -> None:
    write(*make_release("1.0.0", 40), *make_release("1.1.0", 40, first=40))
    run("compare", "--plot", str(plot))
    assert {"▾ 1.0.0", "▾ 1.1.0"} <= set(texts(plot.read_text()))


@pytest.mark.parametrize("command", [["compare"], ["versions"], ["compare", "--by", "name"]])
def test_one_value_alone_has_nothing_to_be_compared_with(write: Write, command: list[str]) -> None:
    """Its figures are shown, and it is said that there is no other."""
    write(*make_release("1.0.0", 40))
    result = run(*command)
    assert result.code == 0
    assert len(result.lines) > 1
    value = "GET /orders/{order_id}" if "name" in command else "1.0.0"
    assert (
        f"There is nothing to compare with: {command[-1] if len(command) > 1 else 'app_version'} is {value}"
        in (result.err)
    )
    assert "nothing to compare with" in run(*command, "--json").err
    write(*make_release("1.1.0", 40, first=40, name="x"))
    assert run(*command).err == ""


def test_one_side_of_a_flag_alone_has_nothing_to_be_compared_with(write: Write) -> None:
    write(*make_release("1.0.0", 40, metadata={"feature_flag_fast": "true"}), make_trace(900))
    result = run("flag", "fast")
    assert "There is nothing to compare with: feature_flag_fast is true" in result.err
    assert "1 trace without feature_flag_fast left out" in result.err


@pytest.mark.parametrize("command", [["compare"], ["versions"], ["flag", "fast"]])
def test_a_filter_is_an_argument_too(write: Write, command: list[str]) -> None:
    """As in ``search``; with ``--where`` and ``--since`` traces must match all of them."""
    now = int(time.time() * 1000)
    for first, version, value, name in (
        (0, "1", "true", "a"),
        (40, "2", "false", "a"),
        (80, "2", "true", "b"),
    ):
        write(
            *make_release(
                version,
                40,
                first=first,
                metadata={"feature_flag_fast": value},
                name=name,
                request_time=now - (86_400_000 if name == "b" else 0),
            )
        )

    def traces(*args: str) -> int:
        return sum(row["traces"] for row in json.loads(run(*command, *args, "--json").out)["rows"])

    assert traces() == 120
    assert traces("name = 'a' OR name = 'c'") == 80
    assert traces("name = 'a' OR name = 'b'", "--where", "metadata.app_version = '2'") == 80
    assert traces("--since", "2h") == 80
    assert traces("name = 'a' OR name = 'b'", "--since", "2h") == 80
    assert run(*command, "nam = 'a'").code == 2


@pytest.mark.usefixtures("releases")
@pytest.mark.parametrize("key", ["none", "region", "name"])
def test_what_is_compared_only_with_itself_can_be_chosen(key: str) -> None:
    assert " is worse than 1.0.0: error rate 20.0 % against 2.0 %" in " ".join(
        run("compare", "--stratify", key).out.split()
    )
