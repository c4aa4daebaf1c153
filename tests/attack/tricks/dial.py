# Connects in the clear, from a port of its choice, and says what came back.
import socket, struct, sys
marker, how, host, port, source = sys.argv[1].encode(), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
IP_LOCAL_PORT_RANGE, TCP_FASTOPEN_NO_COOKIE, MSG_FASTOPEN = 51, 34, 0x20000000
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
s.settimeout(3)
if how == "port-range":
    try:
        s.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", source << 16 | source))
    except OSError:
        # Before Linux 6.3.
        s.bind((host, source))
elif source:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, source))
if how == "fast-open":
    s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
    s.sendto(marker, MSG_FASTOPEN, (host, port))
else:
    s.connect((host, port))
    s.sendall(marker)
print("back=" + s.recv(4096).decode(errors="replace"), flush=True)
