"""``--workers auto``: limits of control groups of both versions, in trees that are made for the test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.config import Config
from lastcall.config.cpus import available_cpus, parse_groups, parse_mounts, quota_cpus

V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 29 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = (
    "23 28 0:21 / /proc rw,nosuid - proc proc rw\n"
    "34 29 0:31 / /sys/fs/cgroup/cpuset rw shared:10 - cgroup cgroup rw,cpuset\n"
)
MANY = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., int]:
    """Make ``/proc/self/cgroup``, mountinfo and the files of groups; return the CPUs that they leave."""

    def make(groups: str, mounts: str, **files: str) -> int:
        for path, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": OTHERS + mounts, **files}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        return quota_cpus(str(tmp_path))

    return make


def v2(group: str, text: str) -> dict[str, str]:
    return {os.path.join("sys/fs/cgroup", group, "cpu.max"): text}


def v1(group: str, quota: int, period: int = 100_000) -> dict[str, str]:
    where = os.path.join("sys/fs/cgroup/cpu,cpuacct", group)
    return {f"{where}/cpu.cfs_quota_us": str(quota), f"{where}/cpu.cfs_period_us": str(period)}


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 0),
        ("30000 10000", 3),
        ("max 100000", MANY),
        ("max", MANY),
        ("", MANY),
        ("100000", MANY),
        ("100000 0", MANY),
        ("0 100000", MANY),
        ("-1 100000", MANY),
        ("many 100000", MANY),
        ("9" * 5000 + " 100000", MANY),
    ],
)
def test_a_quota_of_version_2(machine: Callable[..., int], text: str, cpus: int) -> None:
    found = machine("0::/app.service", V2.format(top="/"), **v2("app.service", text))
    assert found == cpus if cpus < MANY else found >= MANY


def test_the_least_of_the_own_group_and_of_those_above(machine: Callable[..., int]) -> None:
    files = v2("kube/pod/box", "800000 100000") | v2("kube/pod", "300000 100000") | v2("kube", "max 100000")
    assert machine("0::/kube/pod/box", V2.format(top="/"), **files) == 3
    assert machine("0::/kube/pod/box", V2.format(top="/"), **(files | v2("kube", "200000 100000"))) == 2


def test_a_group_beside_ours_has_no_say(machine: Callable[..., int]) -> None:
    assert machine("0::/a", V2.format(top="/"), **v2("b", "100000 100000")) >= MANY


def test_version_1(machine: Callable[..., int]) -> None:
    groups = "5:cpuset:/x\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"
    assert machine(groups, V1.format(top="/"), **v1("docker/abc", 200_000)) == 2
    assert machine(groups, V1.format(top="/"), **v1("docker/abc", -1)) >= MANY
    assert machine(groups, V1.format(top="/"), **v1("docker/abc", -1), **v1("docker", 150_000, 50_000)) == 3


def test_a_container_sees_its_group_at_the_mount_point(machine: Callable[..., int]) -> None:
    """Docker without a namespace of control groups: the path is the host's, and so is the top of the mounted tree."""
    assert machine("4:cpu:/docker/abc", V1.format(top="/docker/abc"), **v1("", 200_000)) == 2
    assert machine("0::/docker/abc/init", V2.format(top="/docker/abc"), **v2("", "300000 100000")) == 3
    assert machine("0::/", V2.format(top="/"), **v2("", "100000 100000")) == 1


def test_hybrid_takes_the_least_of_both(machine: Callable[..., int]) -> None:
    groups = "4:cpu,cpuacct:/x\n0::/x"
    unified = V2.format(top="/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    mounts = f"{unified}\n{V1.format(top='/')}"
    assert machine(groups, mounts, **v1("x", 200_000)) == 2, "version 2 has no cpu.max here"
    both = v1("x", 200_000) | {"sys/fs/cgroup/unified/x/cpu.max": "100000 100000"}
    assert machine(groups, mounts, **both) == 1


@pytest.mark.parametrize(
    ("group", "top", "counts"),
    [
        ("/", "/../..", True),  # the mounted tree begins above our namespace: the group there is above ours
        ("/inner", "/..", True),
        ("/../..", "/../..", True),
        ("/..", "/../..", True),
        ("/../../other", "/..", False),  # we were moved out of our namespace, and of what is mounted
        ("/../other", "/", False),
        ("/ours", "/theirs", False),
        ("/", "/../other", False),
    ],
)
def test_namespaces(machine: Callable[..., int], group: str, top: str, counts: bool) -> None:
    found = machine(f"0::{group}", V2.format(top=top), **v2("", "100000 100000"))
    assert found == 1 if counts else found >= MANY


def test_a_group_that_was_moved_but_is_mounted(machine: Callable[..., int]) -> None:
    files = v2("x", "200000 100000")
    assert machine("0::/../x", V2.format(top="/.."), **files) == 2


def test_a_mount_point_with_a_blank(machine: Callable[..., int]) -> None:
    mount = V2.format(top="/").replace("/sys/fs/cgroup", "/cg\\040roup")
    assert machine("0::/", mount, **{"cg roup/cpu.max": "100000 100000"}) == 1


def test_nothing_is_no_limit(tmp_path: Path) -> None:
    assert quota_cpus(str(tmp_path)) >= MANY
    assert available_cpus(str(tmp_path)) == len(os.sched_getaffinity(0))


def test_less_than_one_cpu_is_one_worker(machine: Callable[..., int], tmp_path: Path) -> None:
    machine("0::/", V2.format(top="/"), **v2("", "50000 100000"))
    assert available_cpus(str(tmp_path)) == 1


def test_auto_is_what_this_machine_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert Config("main:app", workers="auto").options.workers.count == available_cpus()


@given(st.text(alphabet=st.sampled_from("0123:/.-cpu xy\n\\ "), max_size=80))
def test_no_text_makes_it_fail(text: str) -> None:
    for path in parse_groups(text).values():
        assert all(path)
    assert all(hierarchy.version in (1, 2) for hierarchy in parse_mounts(f"1 2 3:4 / /m rw - cgroup2 c rw\n{text}"))
