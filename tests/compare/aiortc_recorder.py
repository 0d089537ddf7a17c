#!/usr/bin/env python3
"""aiortc's MediaRecorder as something that `bench` can send its calls to.

It takes the same orders on standard input and tells the same facts on standard output as the baseline receiver
(src/bench/wire.rs), so the same callers send it the same stream, and its processor time is read in the same way.
It records each call to `<folder>/<call>.webm` (decoding and encoding again, which is what MediaRecorder does).

    python3 -m venv .venv && .venv/bin/pip install -r tests/compare/requirements.txt
    matrix-call-recorder bench --calls 1 --against .venv/bin/python
"""

import asyncio
import json
import os
import sys
import time

import aioice.ice
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRecorder
from aiortc.sdp import candidate_from_sdp

# The callers are on loopback, which aioice leaves out of its candidates.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def tell(fact, **more):
    sys.stdout.write(json.dumps({"told": fact, **more}) + "\n")
    sys.stdout.flush()


def resident_bytes():
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def duration(seconds):
    return {"secs": int(seconds), "nanos": int(seconds % 1 * 1e9)}


class Call:
    def __init__(self, number, folder):
        self.connection = RTCPeerConnection()
        self.recorder = MediaRecorder(os.path.join(folder, f"{number}.webm"))
        self.tracks = 0

    async def answer(self, offer):
        @self.connection.on("track")
        def on_track(track):
            self.tracks += 1
            self.recorder.addTrack(track)

        await self.connection.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        await self.recorder.start()
        return self.connection.localDescription.sdp

    async def add_candidate(self, candidate):
        text = candidate["candidate"]
        if not text:
            return
        parsed = candidate_from_sdp(text.split(":", 1)[1])
        parsed.sdpMid = candidate["mid"] or self.connection.getTransceivers()[0].mid
        parsed.sdpMLineIndex = candidate["m_line"]
        await self.connection.addIceCandidate(parsed)

    async def packets(self):
        stats = await self.connection.getStats()
        return sum(entry.packetsReceived for entry in stats.values() if entry.type == "inbound-rtp")

    async def end(self):
        packets = await self.packets()
        await self.recorder.stop()
        await self.connection.close()
        return packets


async def main(folder):
    os.makedirs(folder, exist_ok=True)
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    calls = {}
    ended = 0
    while line := await orders.readline():
        order = json.loads(line)
        kind = order["order"]
        if kind == "offer":
            number = order["call"]
            try:
                calls[number] = Call(number, folder)
                tell("answer", call=number, sdp=await calls[number].answer(order["sdp"]))
            except Exception as error:  # whatever it is, the bench shall say it
                tell("failed", call=number, reason=repr(error))
        elif kind == "candidate" and order["call"] in calls:
            await calls[order["call"]].add_candidate(order["candidate"])
        elif kind == "sample":
            packets = ended + sum([await call.packets() for call in calls.values()])
            usage = {"cpu": duration(time.process_time()), "resident_bytes": resident_bytes()}
            tell("sample", sample={"usage": usage, "packets": packets})
        elif kind == "hang_up":
            for call in calls.values():
                ended += await call.end()
            calls.clear()
            tell("ended")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "."))
