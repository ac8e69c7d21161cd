"""Connects to an address and port: ends with 0 if that works."""

import socket
import sys

try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20).close()
except OSError as error:
    print(error)
    sys.exit(1)
