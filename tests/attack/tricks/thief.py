# Listens on an address, and says what it got.
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((host, port))
listener.listen(16)
print("ready", flush=True)
while True:
    taken, _ = listener.accept()
    taken.settimeout(2)
    try:
        print("got=" + taken.recv(1000).decode(errors="replace"), flush=True)
    except OSError:
        pass
    taken.close()
