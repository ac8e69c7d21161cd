"""In a sandbox: keeps one connection busy, and tries the closed port beside it.
Prints the number of each exchange; says so when the connection breaks."""

import os
import socket
import sys
import time

FAR = "203.0.113.10"
stop = sys.argv[1]
connection = socket.create_connection((FAR, 443), timeout=60)
number = 0
while not os.path.exists(stop):
    number += 1
    try:
        connection.sendall(b"%d" % number)
        if not connection.recv(64):
            raise OSError("closed")
    except OSError as error:
        print("BROKEN", error, flush=True)
        sys.exit(1)
    print(number, flush=True)
    try:
        socket.create_connection((FAR, 444), timeout=1).close()
        print("ESCAPED", flush=True)
    except OSError:
        pass
    time.sleep(0.02)
