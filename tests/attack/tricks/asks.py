# Asks the daemon for its status.
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(3)
s.connect(sys.argv[1])
s.sendall(b"GET /status HTTP/1.1\r\nHost: tacit\r\nConnection: close\r\n\r\n")
if s.recv(100).startswith(b"HTTP/1.1"):
    print("worked")
