"""The far side: an echo on port 443, and a listener on 444 that nobody may reach,
which writes down who did."""

import socket
import threading

ADDRESS = "203.0.113.10"


def echo(connection):
    while data := connection.recv(64):
        connection.sendall(data)


def listen(port, serve):
    listener = socket.create_server((ADDRESS, port))
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def escaped(connection):
    with open("/tmp/escaped", "a") as file:
        file.write(f"{connection.getpeername()}\n")


threading.Thread(target=listen, args=(444, escaped), daemon=True).start()
open("/tmp/listening", "w").close()
listen(443, echo)
