"""Start an installed server, store and read an item, stop it.  python smoke.py DARNER DATA"""

import signal
import socket
import subprocess
import sys

TIMEOUT_S = 30


def give_up(*_: object) -> None:
    raise TimeoutError


def main(darner: str, data: str) -> None:
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TIMEOUT_S)
    command = [darner, "--port", "0", "--data", data]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            port = 0
            for line in server.stdout:
                if "listening on: 127.0.0.1 port " in line:
                    port = int(line.split()[-1])
                if "ready" in line:
                    break
            assert port, "the server did not start"
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
                connection.sendall(b"set smoke 7 0 5\r\nhello\r\nget smoke\r\nget smoke\r\nquit\r\n")
                replies = connection.makefile("rb").read()
            assert replies == b"STORED\r\nVALUE smoke 7 5\r\nhello\r\nEND\r\nEND\r\n", replies
            server.send_signal(signal.SIGTERM)
            assert server.wait(TIMEOUT_S) == 0, server.returncode
        finally:
            server.kill()
    print("smoke test: stored, read, stopped")


main(*sys.argv[1:])
