# Shares port 7000: says what it got, and sends it back.
import socket, threading
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("0.0.0.0", 7000))
listener.listen(64)
print("ready", flush=True)


def treat(taken):
    try:
        while data := taken.recv(4096):
            print("got=" + data.decode(errors="replace"), flush=True)
            taken.sendall(data)
    except OSError:
        pass
    taken.close()


while True:
    threading.Thread(target=treat, args=(listener.accept()[0],), daemon=True).start()
