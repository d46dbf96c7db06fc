"""The least that a queue server of this kind does: how fast is Python on gevent's loop before any of the work?

As in the real server all sockets are in one epoll, watched by gevent's loop, requests are served in a callback, and
the replies are sent at the end of the loop's turn. But a queue is a deque and nothing is written to disk, only `set`,
`get`, `delete` and `version` are known, nothing is checked, no item is larger than one read, and nobody waits. The
distance from here to memcached belongs to the interpreter and the kernel, the distance from the real server to here
is the price of its work.

    python -m loadtest.compare.floor --port 22134
"""

import argparse
import select
import socket
from collections import defaultdict, deque

import gevent
from gevent.server import StreamServer

RECV_BYTES = 65536
READ = 1  # libev's name for it
LAST_PRIORITY = -2


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.recv = sock.recv
        self.send = sock.send
        self.rest = b""
        self.replies: list[bytes] = []


queues: defaultdict[bytes, deque[bytes]] = defaultdict(deque)
clients: dict[int, Client] = {}
served: list[Client] = []
epoll = select.epoll()


def accept(accepted: socket.socket, address: object) -> None:
    sock = socket.socket(accepted.family, accepted.type, accepted.proto, accepted.detach())
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    clients[sock.fileno()] = Client(sock)
    epoll.register(sock.fileno(), select.EPOLLIN)


def on_ready() -> None:
    for fd, _ in epoll.poll(0):
        client = clients[fd]
        try:
            data = client.recv(RECV_BYTES)
        except OSError:
            data = b""
        if data:
            serve(client, client.rest + data)
            served.append(client)
        else:
            epoll.unregister(fd)
            clients.pop(fd).socket.close()


def serve(client: Client, data: bytes) -> None:
    reply = client.replies.append
    position = 0
    while (end := data.find(b"\n", position)) >= 0:
        words = data[position:end].split()
        verb, after = words[0], end + 1
        if verb == b"set":
            stop = after + int(words[4])
            if stop + 2 > len(data):
                break
            queues[words[1]].append(data[after:stop])
            reply(b"STORED\r\n")
            after = stop + 2
        elif verb == b"get":
            queue = queues[words[1]]
            if queue:
                body = queue.popleft()
                reply(b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (words[1], len(body), body))
            else:
                reply(b"END\r\n")
        elif verb == b"delete":
            queues.pop(words[1], None)
            reply(b"DELETED\r\n")
        else:
            reply(b"VERSION 0\r\n")
        position = after
    client.rest = data[position:]


def end_turn() -> None:
    for client in served:
        if client.replies:
            client.send(b"".join(client.replies))
            client.replies.clear()
    served.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version="floor 1")
    parser.add_argument("--port", type=int, default=22134)
    port = parser.parse_args().port
    loop = gevent.get_hub().loop
    watcher, turn_end = loop.io(epoll.fileno(), READ), loop.prepare(ref=False)
    watcher.start(on_ready)
    turn_end.priority = LAST_PRIORITY
    turn_end.start(end_turn)
    StreamServer(("127.0.0.1", port), accept, backlog=1024, spawn=None).serve_forever()


if __name__ == "__main__":
    main()
