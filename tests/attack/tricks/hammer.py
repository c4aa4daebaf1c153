# Connects to 127.0.0.1:7100 as fast as it can, and gives plaintext to whoever accepts.
import socket, struct
print("ready", flush=True)
gone = struct.pack("ii", 1, 0)
while True:
    s = socket.socket()
    s.setblocking(False)
    try:
        # Loopback answers within the call.
        s.connect_ex(("127.0.0.1", 7100))
        s.send(b"plain")
    except OSError:
        pass
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, gone)
    s.close()
