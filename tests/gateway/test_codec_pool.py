# SPDX-License-Identifier: Apache-2.0
"""Decoding in child processes: same pixels, whatever happens to a child."""

import io
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from archive.errors import Busy, CannotDecode, CannotTranscode
from archive.values import PixelDescription, Rendering
from converters.codecs import decode
from converters.codecs.transfer_syntax import (
    EXPLICIT_LE,
    JPEG_BASELINE,
    JPEG_LS_LOSSLESS,
    JPEGXL_RECOMPRESSION,
)
from gateway import codec_pool
from gateway.codec_pool import CodecPool
from tests.support.make_slide import picture

PICTURE = picture(256, 256)
FRAME = bytes(imagecodecs.jpeg8_encode(PICTURE, level=90))
SOURCE = PixelDescription(JPEG_BASELINE, 256, 256, 3, 8, 8, 0, "YBR_FULL_422")
NATIVE = decode(FRAME, JPEG_BASELINE, 256, 256, 3, 8, "YBR_FULL_422").tobytes()


@pytest.fixture
def pool() -> Iterator[CodecPool]:
    with CodecPool(workers=1, memory_limit_bytes=256 << 20, timeout_s=2) as pool:
        assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE
        yield pool


def announce(rows: int, columns: int) -> bytes:
    at = FRAME.index(b"\xff\xc0")
    return FRAME[: at + 5] + struct.pack(">HH", rows, columns) + FRAME[at + 9 :]


def ended(pid: int, timeout_s: float = 10) -> bool:
    """Whether the process ends in time; waits for it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


def test_tiles_are_put_together_and_scaled(pool: CodecPool) -> None:
    tiles = [(row, column, FRAME) for row in (0, 256) for column in (0, 256)]
    rendering = Rendering(media_type="image/png", rows=256, columns=300)
    shown = np.asarray(Image.open(io.BytesIO(pool.render(tiles, SOURCE, rendering, (512, 512)))))
    assert shown.shape == (256, 256, 3)
    quarter = np.asarray(Image.fromarray(PICTURE).resize((128, 128), Image.Resampling.BOX))
    assert np.abs(shown[:128, 128:].astype(int) - quarter).mean() < 2


def test_a_warm_frame_takes_less_than_60_ms(pool: CodecPool) -> None:
    times = []
    for _ in range(15):
        start = time.perf_counter()
        pool.render([(0, 0, FRAME)], SOURCE, Rendering(), (256, 256))
        times.append(time.perf_counter() - start)
    assert sorted(times)[7] < 0.06


def test_a_jpeg_goes_to_jpeg_xl_and_back_bit_for_bit(pool: CodecPool) -> None:
    smaller = pool.transcode(FRAME, SOURCE, JPEGXL_RECOMPRESSION)
    assert len(smaller) < len(FRAME)
    back = replace(SOURCE, transfer_syntax_uid=JPEGXL_RECOMPRESSION)
    assert pool.transcode(smaller, back, JPEG_BASELINE) == FRAME


def test_what_a_codec_cannot_hold_is_not_tried(pool: CodecPool) -> None:
    palette = replace(SOURCE, transfer_syntax_uid=EXPLICIT_LE, photometric_interpretation="PALETTE COLOR")
    assert not pool.can_transcode(palette, JPEG_BASELINE)
    with pytest.raises(CannotTranscode):
        pool.transcode(NATIVE, palette, JPEG_BASELINE)
    with pytest.raises(CannotTranscode, match="image/tiff"):
        pool.render([(0, 0, FRAME)], SOURCE, Rendering(media_type="image/tiff"), (256, 256))


def test_a_damaged_frame_costs_nothing_but_itself(pool: CodecPool) -> None:
    before = pool.child_pids()
    with pytest.raises(CannotDecode):
        pool.transcode(b"\xff\xd8\xff", SOURCE, EXPLICIT_LE)
    assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE
    assert pool.child_pids() == before


def test_a_child_killed_while_idle_is_replaced_unnoticed(pool: CodecPool) -> None:
    [pid] = pool.child_pids()
    os.kill(pid, signal.SIGKILL)
    assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE
    assert pool.child_pids() != [pid]
    assert not Path(f"/proc/{pid}").exists()


def test_a_child_that_crashes_fails_its_request_and_no_other(pool: CodecPool) -> None:
    [pid] = pool.child_pids()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(pool.transcode, FRAME, SOURCE, EXPLICIT_LE)
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)
        assert ended(pid)
        assert waiting.exception() is None or isinstance(waiting.exception(), CannotDecode)
    assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE


def test_a_child_that_hangs_is_ended_in_time(pool: CodecPool) -> None:
    [pid] = pool.child_pids()
    os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(CannotDecode, match="too long"):
        pool.transcode(FRAME, SOURCE, EXPLICIT_LE)
    assert 1.9 < time.monotonic() - start < 4
    assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE
    assert not Path(f"/proc/{pid}").exists()


def test_a_frame_that_keeps_its_codec_busy_is_given_up(pool: CodecPool) -> None:
    """A wrong byte and a cut make CharLS 2.4 work for 8 seconds on 64 x 96 pixels."""
    stream = bytearray(imagecodecs.jpegls_encode(picture(64, 96)))
    stream[1334] = 0x80
    del stream[1415:]
    source = replace(SOURCE, transfer_syntax_uid=JPEG_LS_LOSSLESS, rows=64, columns=96)
    start = time.monotonic()
    with pytest.raises(CannotDecode):
        pool.transcode(bytes(stream), source, EXPLICIT_LE)
    assert time.monotonic() - start < 4
    assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE


def test_a_bomb_is_refused_by_its_header(pool: CodecPool) -> None:
    with pytest.raises(CannotDecode, match="65500 x 65500 pixels, the header says 256 x 256"):
        pool.transcode(announce(65500, 65500), SOURCE, EXPLICIT_LE)
    agreed = replace(SOURCE, rows=65500, columns=65500)
    with pytest.raises(CannotDecode, match="beyond the limit"):
        pool.transcode(announce(65500, 65500), agreed, EXPLICIT_LE)


def test_memory_beyond_the_limit_is_not_had(pool: CodecPool) -> None:
    """12,000 x 12,000 pixels pass the header's check and need 432 MB; 256 are allowed."""
    [pid] = pool.child_pids()
    agreed = replace(SOURCE, rows=12000, columns=12000)
    with pytest.raises(CannotDecode, match="not enough memory"):
        pool.transcode(announce(12000, 12000), agreed, EXPLICIT_LE)
    assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE
    assert pool.child_pids() != [pid]


def test_a_canvas_beyond_the_limit_is_refused(pool: CodecPool) -> None:
    with pytest.raises(CannotDecode, match="beyond the limit"):
        pool.render([], SOURCE, Rendering(), (200_000, 200_000))


def test_requests_beyond_the_queue_are_busy() -> None:
    with CodecPool(workers=1, timeout_s=5, queue_limit=1) as pool:
        pool.transcode(FRAME, SOURCE, EXPLICIT_LE)
        [pid] = pool.child_pids()
        os.kill(pid, signal.SIGSTOP)
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(pool.transcode, FRAME, SOURCE, EXPLICIT_LE) for _ in range(8)]
            first = wait(asked, timeout=10, return_when=FIRST_COMPLETED).done.pop()
            assert isinstance(first.exception(), Busy)
            os.kill(pid, signal.SIGCONT)
        results = [request.exception() for request in asked]
        assert results.count(None) >= 1
        assert all(error is None or isinstance(error, Busy) for error in results)


def test_an_unforeseen_fault_is_an_answer_and_the_next_request_is_served(
    pool: CodecPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(child: object) -> bool:
        raise RuntimeError("nobody thought of this")

    with ThreadPoolExecutor(1) as threads:
        [before] = pool.child_pids()
        with monkeypatch.context() as patch:
            patch.setattr(codec_pool.Child, "alive", broken)
            error = threads.submit(pool.transcode, FRAME, SOURCE, EXPLICIT_LE).exception(20)
        assert isinstance(error, CannotDecode)
        assert ended(before)
        assert threads.submit(pool.transcode, FRAME, SOURCE, EXPLICIT_LE).result(60) == NATIVE


def test_without_a_thread_to_be_had_a_request_is_refused_and_a_later_one_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    with CodecPool(workers=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(codec_pool.threading.Thread, "start", none_left)
            with pytest.raises(Busy):
                pool.transcode(FRAME, SOURCE, EXPLICIT_LE)
        assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE


def test_many_threads_get_each_their_own_frame() -> None:
    frames = [bytes(imagecodecs.jpeg8_encode(np.full((64, 64, 3), n * 5, np.uint8))) for n in range(40)]
    source = replace(SOURCE, rows=64, columns=64)
    with CodecPool(workers=2) as pool, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda frame: pool.transcode(frame, source, EXPLICIT_LE), frames))
    assert all(abs(result[0] - n * 5) <= 1 for n, result in enumerate(results))


def test_closing_leaves_no_process_and_no_zombie() -> None:
    pool = CodecPool(workers=2)
    pool.transcode(FRAME, SOURCE, EXPLICIT_LE)
    pids = pool.child_pids()
    pool.close()
    pool.close()
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(Busy, match="closed"):
        pool.transcode(FRAME, SOURCE, EXPLICIT_LE)


def test_nothing_runs_before_the_first_request_and_no_codec_is_loaded_here() -> None:
    script = (
        "import sys; from gateway.codec_pool import CodecPool; pool = CodecPool();"
        "print(pool.child_pids(), 'numpy' in sys.modules, 'imagecodecs' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False", "False"]


def test_children_die_with_a_parent_that_was_killed() -> None:
    script = (
        "import sys; from gateway.codec_pool import CodecPool; from tests.gateway.test_codec_pool import *\n"
        "pool = CodecPool(workers=2); pool.transcode(FRAME, SOURCE, EXPLICIT_LE)\n"
        "print(*pool.child_pids(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)  # it cannot notice by itself
        parent.kill()
    assert pids
    assert all(ended(pid) for pid in pids)


def test_children_know_none_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_DATABASE_URL", "postgresql://user:canary@host/db")
    with CodecPool(workers=1) as pool:
        pool.transcode(FRAME, SOURCE, EXPLICIT_LE)
        [pid] = pool.child_pids()
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_forked_process_starts_children_of_its_own(pool: CodecPool) -> None:
    before = pool.child_pids()
    if (fork := os.fork()) == 0:
        try:
            done = pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE
            os._exit(0 if done and pool.child_pids() != before else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
    assert pool.transcode(FRAME, SOURCE, EXPLICIT_LE) == NATIVE
