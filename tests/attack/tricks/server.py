# Serves on a port of every address: says what it got, and sends it back.
import socket, sys, threading
port = int(sys.argv[1])
listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
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
