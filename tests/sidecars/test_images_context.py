from __future__ import annotations

import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from netpolicy.errors import UserError
from sidecars.images import GATE, INSTANCE, BuildOptions
from sidecars.images import recipe as recipes
from sidecars.images.build import planned
from sidecars.images.certificates import Certificate
from sidecars.images.context import Context, collect
from sidecars.images.recipe import our_version

CERTIFICATE = Certificate("host-1", b"pem")


def members(context: Context) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=context.archive()) as tar:
        return {m.name: m for m in tar.getmembers()}


def test_the_instance_gets_our_packages_their_lock_and_our_version() -> None:
    found = members(collect(INSTANCE, (CERTIFICATE,)))
    assert {"Dockerfile", "requirements.lock", "certificates", "certificates/host-1.crt"} <= set(found)
    assert {"cspace/netpolicy/errors.py", "cspace/sidecars/images/context.py", "cspace/cspace_mcp/__init__.py"} <= set(
        found
    )
    assert f"cspace/cspace-{our_version()}.dist-info/METADATA" in found


def test_the_gate_gets_netpolicy_alone() -> None:
    found = {name.split("/")[0] for name in members(collect(GATE, ()))}
    assert found == {"Dockerfile", "requirements.lock", "certificates", "netpolicy"}


def test_nothing_of_this_machine_is_in_the_archive() -> None:
    found = members(collect(INSTANCE, ()))
    assert not [name for name in found if "__pycache__" in name or name.endswith(".pyc") or "_templates" in name]
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in found.values()} == {(0, 0, 0, "")}
    assert {m.mode for m in found.values()} == {0o644, 0o755}


def test_the_same_contents_make_the_same_archive_and_hash() -> None:
    first, second = collect(GATE, (CERTIFICATE,)), collect(GATE, (CERTIFICATE,))
    assert first.archive().getvalue() == second.archive().getvalue()
    assert first.hash("a") == second.hash("a")


def test_every_part_counts_in_the_hash(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_bytes(b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n")
    plain = BuildOptions()
    hashes = [
        planned(GATE, options)[1]
        for options in (
            plain,
            replace(plain, certificates=(pem,)),
            replace(plain, base="other:1"),
            replace(plain, arguments={"A": "b"}),
            replace(plain, arguments={"A": "c"}),
        )
    ]
    assert len(set(hashes)) == len(hashes)
    context = Context({"a": b"b", "c": b"d"})
    for other in ({"a": b"b"}, {"a": b"b", "c": b"e"}, {"a": b"b", "x": b"d"}, {"a": b"bc", "": b"d"}):
        assert Context(other).hash() != context.hash()


def test_an_installed_wheel_has_the_same_context_as_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(recipes.__file__).parents[2]
    site = tmp_path / "site-packages"
    shutil.copytree(root / "sidecars", site / "sidecars", ignore=shutil.ignore_patterns("__pycache__"))
    # As pyproject.toml lays it out.
    shutil.copytree(root / "lib" / "templates", site / "sidecars" / "_templates")
    shutil.copy(root / "requirements.lock", site / "sidecars" / "_templates")
    wanted = collect(INSTANCE, ()).hash(), collect(GATE, ()).hash()
    monkeypatch.setattr(recipes, "__file__", str(site / "sidecars" / "images" / "recipe.py"))
    assert recipes.templates() == site / "sidecars" / "_templates"
    assert (collect(INSTANCE, ()).hash(), collect(GATE, ()).hash()) == wanted


def test_the_wheel_is_laid_out_so() -> None:
    text = (Path(recipes.__file__).parents[2] / "pyproject.toml").read_text()
    assert '"lib/templates" = "sidecars/_templates"' in text
    assert '"requirements.lock" = "sidecars/_templates/requirements.lock"' in text


def test_an_installation_without_templates_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "__file__", str(tmp_path / "sidecars" / "images" / "recipe.py"))
    with pytest.raises(UserError) as caught:
        collect(GATE, ())
    assert caught.value.code == "installation-incomplete"


def test_an_archive_is_read_by_tar() -> None:
    with tarfile.open(fileobj=io.BytesIO(Context({"d/": b"", "d/f": b"x"}).archive().getvalue())) as tar:
        assert [(m.name, m.isdir()) for m in tar.getmembers()] == [("d", True), ("d/f", False)]
