# Holds a connection open; says its number.
import socket, time
s = socket.create_connection(("10.77.0.2", 7000), timeout=5)
s.sendall(b"x")
s.recv(1)
print("fd=%d ready" % s.fileno(), flush=True)
time.sleep(30)
