"""asyncio: a server that echoes, and clients, over the loopback."""
import asyncio
import select
import sys


async def serve(reader, writer):
    while True:
        line = await reader.readline()
        if not line:
            break
        writer.write(line)
        await writer.drain()
    writer.close()


async def client(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for i in range(20):
        writer.write(b"x" * 2000 + b"\n")
        await writer.drain()
        assert len(await reader.readline()) == 2001
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    number = 0
    while not select.select([0], [], [], 0)[0]:
        await asyncio.gather(*[client(port) for _ in range(10)])
        number += 1
        if number == 10:
            sys.stdout.write("warm\n")
            sys.stdout.flush()
    server.close()


asyncio.get_event_loop_policy().new_event_loop().run_until_complete(main())
