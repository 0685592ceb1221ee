"""Compiling the kernels: kept, found again, checked, refused; and threads and forks that meet in them."""

import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from nemodiff.model.cpu import KernelsUnavailable, compiled_kernels
from nemodiff.model.cpu.check import check
from tests.helpers.kernels import TILES_HERE, kernel_model, needs_int8, prefilled

build = pytest.importorskip("nemodiff.model.cpu.build")
pytestmark = needs_int8


@pytest.fixture
def code(monkeypatch):
    """Machine code of the fastest tile, and nothing loaded: as a new process starts. Counts what is compiled."""
    tile = build.choose_tile()
    made = build._read(build_folder() / f"{tile.name}-{build._fingerprint(tile)}.o") or build.compile_kernels(tile)
    compiled: list[str] = []
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setattr(build, "compile_kernels", lambda tile: compiled.append(tile.name) or made)
    return compiled


def build_folder():
    from nemodiff.cache_folder import cache_folder

    return cache_folder() / "kernels"


def test_they_are_compiled_once_and_then_found(tmp_path, code, monkeypatch, capsys):
    for _ in range(3):
        monkeypatch.setattr(build, "_loaded", {})
        build.load_kernels(tmp_path, None, check)
    assert len(code) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("Compiling the CPU kernels") and said[1].startswith("Compiled and checked in")
    assert len(said) == 2


def test_a_damaged_file_is_compiled_anew(tmp_path, code, monkeypatch):
    build.load_kernels(tmp_path, None, check)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    for damaged in (content[:-9], content[:3], b"", bytes([*content[:4000], content[4000] ^ 1, *content[4001:]])):
        file.write_bytes(damaged)
        monkeypatch.setattr(build, "_loaded", {})
        build.load_kernels(tmp_path, None, check)
        assert file.read_bytes() == content
    assert len(code) == 5


def test_a_folder_that_cannot_be_written_costs_a_line(tmp_path, code, capsys):
    """A file stands where the folder would be: no user may write there."""
    (tmp_path / "kernels").write_text("in the way")
    kernels = build.load_kernels(tmp_path / "kernels", None, check)
    assert "and not kept:" in capsys.readouterr().err
    assert kernels.tile.name == os.environ.get(build.SETTING, TILES_HERE[0])


def test_processes_that_compile_at_once_leave_one_whole_file(tmp_path, code, monkeypatch):
    """Both write; whichever is last, what is there is whole, and nothing else is."""
    barrier = threading.Barrier(2)
    keep = build._keep

    def together(file, made):
        barrier.wait(60)
        return keep(file, made)

    monkeypatch.setattr(build, "_keep", together)
    tile = build.choose_tile()
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: build._load(tile, tmp_path, check), range(2)))
    assert len(made) == 2 and len(code) == 2
    (file,) = tmp_path.iterdir()
    assert build._read(file) is not None


def test_what_does_not_pass_the_check_is_not_used_and_not_kept(tmp_path, code):
    def wrong(kernels):
        raise KernelsUnavailable("its products are not exact")

    with pytest.raises(KernelsUnavailable, match="not exact"):
        build.load_kernels(tmp_path, None, wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_wrong_products(monkeypatch):
    kernels = compiled_kernels()
    product = kernels.product

    def off_by_one(rows, steps, *more):
        product(rows, steps, *more)
        ctypes.c_float.from_address(more[-3]).value += 2**16  # where the first result lies

    check(kernels)
    monkeypatch.setattr(kernels, "product", off_by_one)
    with pytest.raises(KernelsUnavailable, match="products of 1 rows are not exact"):
        check(kernels)


def test_a_compiler_that_fails_is_a_sentence(tmp_path, code, monkeypatch):
    def fail(tile):
        raise RuntimeError("LLVM ERROR:\n  no such\n  thing")

    monkeypatch.setattr(build, "compile_kernels", fail)
    with pytest.raises(KernelsUnavailable, match=r"do not compile here \(LLVM ERROR: no such thing\)"):
        build.load_kernels(tmp_path, None, check)


def test_a_tile_can_be_forced_and_must_be_there(monkeypatch):
    for name in TILES_HERE:
        monkeypatch.setenv(build.SETTING, name)
        assert build.choose_tile().name == name
    monkeypatch.setenv(build.SETTING, "auto")
    assert build.choose_tile().name == TILES_HERE[0]
    monkeypatch.setenv(build.SETTING, "abacus")
    with pytest.raises(KernelsUnavailable, match="is 'abacus', and there are auto, amx"):
        build.choose_tile()
    monkeypatch.setattr(build, "_host", lambda: ("old", {"avx2": False}))
    monkeypatch.setenv(build.SETTING, "avx2")
    with pytest.raises(KernelsUnavailable, match="asks for 'avx2', and this processor has no avx2"):
        build.choose_tile()
    assert build.tiles_here() == ["generic"]


@pytest.mark.skipif("amx" not in TILES_HERE, reason="this processor has no AMX")
def test_amx_is_left_alone_where_linux_does_not_grant_it(monkeypatch):
    monkeypatch.setattr(build, "amx_allowed", lambda: False)
    monkeypatch.setenv(build.SETTING, "auto")
    assert build.choose_tile().name == "vnni"
    monkeypatch.setenv(build.SETTING, "amx")
    with pytest.raises(KernelsUnavailable, match="has no AMX that this process may use"):
        build.choose_tile()


def test_machine_code_that_depends_on_more_has_another_name(monkeypatch):
    tile = build.choose_tile()
    name = build._fingerprint(tile)
    assert build._fingerprint(tile) == name
    monkeypatch.setattr(build, "version", lambda package: "0")
    assert build._fingerprint(tile) != name


def test_threads_that_call_at_once_take_turns(llama_folder):
    """Two models and a shared one, from four threads: everyone gets what it gets alone."""
    models = [kernel_model(llama_folder) for _ in range(2)]
    prompts = [torch.arange(20 + index) for index in range(4)]
    alone = [models[0](ids, models[0].new_cache(64), causal=True) for ids in prompts]
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def run(index):
        model, ids = models[index % 2], prompts[index]
        return all(torch.equal(model(ids, model.new_cache(64), causal=True), alone[index]) for _ in range(10))

    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(run, range(4)))
    finally:
        torch.set_num_threads(before)


FORK = """
import os, sys, torch
torch.set_num_threads(2)
from pathlib import Path
from tests.helpers.kernels import kernel_model, prefilled
model = kernel_model(Path(sys.argv[1]))
ids = torch.arange(30)
expected = model(ids, model.new_cache(64), causal=True)
child = os.fork()
if child == 0:
    same = all(torch.equal(model(ids, model.new_cache(64), causal=True), expected) for _ in range(3))
    os._exit(0 if same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.equal(model(ids, model.new_cache(64), causal=True), expected)
"""


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="no fork here")
def test_a_forked_child_decodes_and_so_does_its_parent_after_it(llama_folder):
    done = subprocess.run([sys.executable, "-c", FORK, str(llama_folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_loaded_process_needs_no_numba(llama_folder):
    program = (
        "import sys; from tests.helpers.kernels import kernel_model; from pathlib import Path;"
        "kernel_model(Path(sys.argv[1])); sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(llama_folder)], check=True, timeout=300)


def test_caches_are_copied_not_shared(llama_folder):
    model = kernel_model(llama_folder)
    cache = prefilled(model, torch.arange(20))
    other = cache.copy()
    model(torch.arange(5), other, causal=True)
    other.keep(5)
    assert cache.length == 20 and other.length == 25
    assert not torch.equal(cache.values, other.values)
    keys, values = cache.kept()
    assert keys.shape == values.shape == (3, 2, 20, 32)
