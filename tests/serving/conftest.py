"""Servers over bundles and over exports folders as the gate leaves them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bundles import make_bundle
from tests.promoted import A, B, ship_of
from tests.running import Server, running

BALLAST = 20_000  # columns: a step takes some milliseconds
Start = Callable[..., Server]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One without a promotion, for servers whose version does not matter."""
    return make_bundle(tmp_path_factory.mktemp("bundle")).path


@pytest.fixture(scope="session")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, and so slow that frames gather."""
    return make_bundle(tmp_path_factory.mktemp("slow"), ballast=BALLAST).path


@pytest.fixture(scope="session")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for every test that leaves it as it was."""
    limits = ("--max-request-mb", "4", "--max-upload-mb", "4")
    with running(Server(bundle, tmp_path_factory.mktemp("server"), "--accept-host", *limits)) as one:
        yield one


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """start(folder, *options, key=...) gives a server of this test's own; a folder without a promotion is accepted."""
    started = request.node.servers = list[Server]()

    def begin(folder: Path, *options: str, key: str | None = None) -> Server:
        accept = () if (folder / "promotion.json").is_file() else ("--accept-host",)
        started.append(Server(folder, tmp_path / f"server{len(started)}", *accept, *options, key=key))
        return started[-1].wait_until_ready()

    yield begin
    for one in started:
        one.close()


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """An exports folder that ships A; B was shipped before, so that both are archived, A as 2 and B as 1."""
    folder = tmp_path / "exports"
    folder.mkdir()
    ship_of(folder, B)
    ship_of(folder, A, day=2)
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """The end of the log of every server that a failed test had."""
    report = yield
    if report.failed:
        shared = [one for one in getattr(item, "funcargs", {}).values() if isinstance(one, Server)]
        for one in [*shared, *getattr(item, "servers", [])]:
            report.sections.append((f"log of {one.log.parent.name}", one.text[-4000:]))
    return report
