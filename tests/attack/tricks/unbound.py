# Listens without bind(): the kernel chooses the port.
import socket
listener = socket.socket()
listener.listen(16)
print("ready", flush=True)
while True:
    taken, _ = listener.accept()
    taken.settimeout(2)
    try:
        print("got=" + taken.recv(100).decode(errors="replace"), flush=True)
    except OSError:
        pass
    taken.close()
