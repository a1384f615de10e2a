"""Do clients see errors while others hold connections and never finish? The whole application, besieged.

    python -m benchmarks.siege PHOTOS [--model fast] [--clients 64] [--dripping 50] [--idle 300] [--seconds 180]

PHOTOS is a folder of pictures. Clients send one picture a request, and the next when the answer is there. Beside them
some connections send a byte a second, half of them of a header and half of a body, and others send nothing; whoever is
hung up on calls again. Printed: answers a second, the median and the 95th percentile of an answer's time, every answer
that was an error, how often the besiegers were hung up on, and the server's memory before and after.
"""

import argparse
import asyncio
import contextlib
import statistics
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.serving import resident, start
from captioner.options import MODELS
from captioner.pictures import find_images

HEADERS = b"POST /api/caption HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Slow: "
BODY = (
    b"POST /api/caption HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"
)


async def hold(address: str, said: bytes, *, drips: bool, ended: Counter[str]) -> None:
    """One connection after the other that says this much and then, if it drips, a byte a second."""
    place = urlsplit(address)
    while True:
        try:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
        except OSError:
            ended["refused"] += 1
            await asyncio.sleep(1)
            continue
        try:
            writer.write(said)
            while drips:
                writer.write(b"x")
                await writer.drain()
                with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(reader.read(), 1)
                    break
            await reader.read()
        except OSError:
            pass
        finally:
            ended["dripping" if drips else "idle"] += 1
            writer.close()


async def siege(address: str, photos: list[bytes], chosen: argparse.Namespace) -> tuple[list[float], Counter[str]]:
    """The times of the clients' answers, and what else happened, by its name."""
    happened: Counter[str] = Counter()
    times: list[float] = []
    stop = time.perf_counter() + chosen.seconds
    holders = [
        asyncio.create_task(hold(address, (HEADERS + b"X-Slow: ", BODY)[number % 2], drips=True, ended=happened))
        for number in range(chosen.dripping)
    ]
    holders += [asyncio.create_task(hold(address, b"", drips=False, ended=happened)) for _ in range(chosen.idle)]

    async def client(number: int, http: httpx.AsyncClient) -> None:
        sent = number
        while time.perf_counter() < stop:
            asked = time.perf_counter()
            try:
                answer = await http.post("/api/caption", files={"files": ("a.jpg", photos[sent % len(photos)])})
                if answer.status_code == 200:
                    times.append(time.perf_counter() - asked)
                else:
                    happened[f"error: status {answer.status_code}"] += 1
            except httpx.HTTPError as error:
                happened[f"error: {type(error).__name__}"] += 1
            sent += chosen.clients

    limits = httpx.Limits(max_connections=chosen.clients)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
        await asyncio.gather(*(client(number, http) for number in range(chosen.clients)))
    for holder in holders:
        holder.cancel()
    await asyncio.gather(*holders, return_exceptions=True)
    return times, happened


def main() -> None:
    """Besieges and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="fast", choices=MODELS)
    for name, value in (("clients", 64), ("dripping", 50), ("idle", 300), ("seconds", 180)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    photos = [path.read_bytes() for path in find_images(chosen.photos)[:200]]
    process, address = start(chosen.model, 16)
    try:
        httpx.post(f"{address}/api/caption", files={"files": ("a.jpg", photos[0])}, timeout=120).raise_for_status()
        before = resident(process)
        times, happened = asyncio.run(siege(address, photos, chosen))
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        print(
            f"{len(times):,} answers, {len(times) / chosen.seconds:.1f} /s, median {p50:.2f} s, 95% within {p95:.2f} s"
        )
        print(f"errors: {sum(count for name, count in happened.items() if name.startswith('error'))}; {dict(happened)}")
        print(f"memory: {before:,.0f} MB at the start, {resident(process):,.0f} MB at the end")
    finally:
        process.kill()


if __name__ == "__main__":
    main()
