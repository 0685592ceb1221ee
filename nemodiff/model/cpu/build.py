"""The kernels as machine code: chosen for this processor, compiled once, kept on disk, called through ctypes.

numba turns `kernels` into LLVM's language; the tiles of an instruction set are joined to it there and LLVM makes an
object file of both. That file lies in the cache folder under a name that holds everything it depends on, so that later
processes only load it, without numba.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding as llvm
from llvmlite import ir

from nemodiff.model.cpu.plan import KernelsUnavailable, say
from nemodiff.model.cpu.tile_amx import amx_allowed
from nemodiff.model.cpu.tiles import TILES, Tile, define_tiles

#: Which tile to run: auto, or one of `TILES`.
SETTING = "NEMODIFF_CPU_TILE"
_EXTERNAL = ("nemodiff_product", "nemodiff_scores", "nemodiff_mix")
_EXPORTED = ("nemodiff_work", "nemodiff_serve", "nemodiff_product", "nemodiff_weigh")
#: What the machine code may ask of the C library, and nothing else.
_LIBRARY = {"read", "sched_yield", "_read", "SwitchToThread", "memset", "memcpy", "memmove", "exp", "log", "sqrt"}
_LIBRARY |= {f"{name}f" for name in ("exp", "log", "sqrt", "fma", "roundeven")} | {"fma"}
_DIGEST = hashlib.sha256().digest_size
_lock = threading.Lock()
#: What this process runs, by tile. It stays: helpers may be waiting inside of it.
_loaded: dict[Tile, Kernels] = {}


class Kernels:
    """The compiled functions. work(plan, worker) runs a thread's share of a forward, serve(file, mailbox, worker) is a
    helper's life (see `kernels`), weigh(plan) a draft head's group; all give up Python's lock while they run."""

    def __init__(self, tile: Tile, machine_code: bytes) -> None:
        self.tile = tile
        module = llvm.parse_assembly("")
        # The engine owns the code: it must live as long as the functions.
        self._engine = llvm.create_mcjit_compiler(module, _target().create_target_machine(jit=True))
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
        self._engine.finalize_object()
        self.work = self._function("nemodiff_work", 2)
        self.serve = self._function("nemodiff_serve", 3)
        self.product = self._function("nemodiff_product", 10)
        self.weigh = self._function("nemodiff_weigh", 1)

    def _function(self, name: str, parameters: int) -> Callable[..., None]:
        address = self._engine.get_function_address(name)
        if not address:
            raise KernelsUnavailable(f"the compiled kernels lack {name}")
        return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * parameters)(address)


def tiles_here() -> list[str]:
    """The tiles that this processor can run, the fastest first."""
    return [name for name, tile in TILES.items() if not _lacking(tile)]


def choose_tile(name: str | None = None) -> Tile:
    """The tile of that name, else the one that $NEMODIFF_CPU_TILE names, else the fastest that runs here.

    Raises KernelsUnavailable for a name that is unknown or needs what the processor lacks.
    """
    name = name or os.environ.get(SETTING) or "auto"
    if name == "auto":
        return TILES[tiles_here()[0]]
    if name not in TILES:
        raise KernelsUnavailable(f"{SETTING} is {name!r}, and there are auto, {', '.join(TILES)}")
    if lacking := _lacking(TILES[name]):
        raise KernelsUnavailable(f"{SETTING} asks for {name!r}, and this processor has no {lacking[0]}")
    return TILES[name]


def _load(tile: Tile, folder: Path, check: Callable[[Kernels], None]) -> Kernels:
    file = folder / f"{tile.name}-{_fingerprint(tile)}.o"
    code = _read(file)
    if code is not None:
        return Kernels(tile, code)
    begin = time.perf_counter()
    say(f"Compiling the CPU kernels ({tile.name}), once …")
    code = compile_kernels(tile)
    kernels = Kernels(tile, code)
    check(kernels)
    kept = _keep(file, code)
    say(f"Compiled and checked in {time.perf_counter() - begin:.0f} s{kept}.")
    return kernels


def load_kernels(folder: Path, name: str | None, check: Callable[[Kernels], None]) -> Kernels:
    """The kernels for this processor, from `folder` or compiled into it. Raises KernelsUnavailable.

    name: a tile to run, as for `choose_tile`. check: what new machine code must pass; it raises KernelsUnavailable.
    Compiling says so in a line on standard error.
    """
    tile = choose_tile(name)
    with _lock:
        try:
            if tile not in _loaded:
                _loaded[tile] = _load(tile, folder, check)
            return _loaded[tile]
        except KernelsUnavailable:
            raise
        except Exception as error:  # numba and LLVM raise their own, of many kinds: whatever it is, torch still runs
            reason = " ".join(str(error).split()) or type(error).__name__
            raise KernelsUnavailable(f"the kernels do not compile here ({reason[:200]})") from error


@cache
def _host() -> tuple[str, dict[str, bool]]:
    return llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())


def _lacking(tile: Tile) -> list[str]:
    lacking = [feature for feature in tile.needs if not _host()[1].get(feature)]
    return lacking or (["AMX that this process may use"] if "amx-int8" in tile.needs and not amx_allowed() else [])


def _target() -> llvm.Target:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple()


def _features(tile: Tile) -> str:
    found = _host()[1]
    used = [f"{'+' if on and name not in tile.without else '-'}{name}" for name, on in sorted(found.items())]
    return ",".join([*used, *(f"+{name}" for name in tile.tuning)])


def _fingerprint(tile: Tile) -> str:
    """A name that changes with all that the machine code depends on."""
    parts = [version("numba"), version("llvmlite"), sys.version, llvm.get_default_triple(), _host()[0], _features(tile)]
    sources = sorted(Path(__file__).parent.glob("*.py"))
    content = b"\0".join([*(part.encode() for part in parts), *(source.read_bytes() for source in sources)])
    return hashlib.sha256(content).hexdigest()[:20]


def compile_kernels(tile: Tile) -> bytes:
    """The object file of the kernels with this tile, compiled for this processor."""
    target = _target()
    machine = target.create_target_machine(
        cpu=_host()[0], features=_features(tile), opt=3, reloc="static", codemodel="large", jit=True
    )
    tiles = ir.Module("tiles")
    tiles.triple, tiles.data_layout = llvm.get_default_triple(), str(machine.target_data)
    define_tiles(tiles, tile, fused=bool(_host()[1].get("fma")) or tiles.triple.startswith(("aarch64", "arm64")))
    module = llvm.parse_assembly(_driver())
    module.link_in(llvm.parse_assembly(str(tiles)))
    module.verify()
    for function in module.functions:
        if not function.is_declaration and function.name not in _EXPORTED:
            function.linkage = "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine, options)
    passes = builder.getModulePassManager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, builder)
    unknown = [
        function.name
        for function in module.functions
        if function.is_declaration and not function.name.startswith("llvm.") and function.name not in _LIBRARY
    ]
    if unknown:
        raise KernelsUnavailable(f"the compiled kernels need {unknown[0]}, which is in no library of theirs")
    return machine.emit_object(module)


@cache
def _driver() -> str:
    """`kernels.work`, `kernels.serve` and `kernel_draft_head.weigh` in LLVM's language, under plain names; the tiles
    are still missing."""
    for name in _EXTERNAL:  # numba makes machine code too, which nobody calls: it only has to find the names
        llvm.add_symbol(name, ctypes.cast(_nothing, ctypes.c_void_p).value)
    from numba import types

    from nemodiff.model.cpu.kernel_draft_head import weigh
    from nemodiff.model.cpu.kernels import serve, work

    parts, wrappers = [], []
    for name, function, parameters in (
        ("nemodiff_work", work, 2),
        ("nemodiff_serve", serve, 3),
        ("nemodiff_weigh", weigh, 1),
    ):
        signature = (types.intp,) * parameters
        function.compile(signature)
        parts.append(function.inspect_llvm(signature))
        inner = function.overloads[signature].fndesc.llvm_func_name
        named = ", ".join(f"i64 %a{index}" for index in range(parameters))
        wrappers.append(
            f"define void @{name}({named}) {{\n  %result = alloca ptr\n  %error = alloca ptr\n"
            f'  call i32 @"{inner}"(ptr %result, ptr %error, {named})\n  ret void\n}}\n'
        )
    module = llvm.parse_assembly(parts[0])
    for part in parts[1:]:
        module.link_in(llvm.parse_assembly(part))
    declared = str(module)
    return declared + "\n" + "".join(wrappers)


@ctypes.CFUNCTYPE(None)
def _nothing() -> None:
    """What stands for a tile while numba compiles."""


def _read(file: Path) -> bytes | None:
    """The machine code of a file, None where there is none or it is damaged: its digest comes first."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST], content[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(file: Path, code: bytes) -> str:
    """Write machine code, whole or not at all, so that processes which compile at once do not meet. Returns what to
    say where it could not be kept."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(hashlib.sha256(code).digest() + code)
        os.replace(part.name, file)
    except OSError as error:
        return f", and not kept: {file.parent} cannot be written ({error.strerror})"
    return ""
