# Gives a marker with the SYN, on a socket whose own options say where packets go.
import socket, struct, sys, time
marker, how = sys.argv[1].encode(), sys.argv[2]
host, host6 = "10.77.0.2", "fd00:77::2"
TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE, MSG_FASTOPEN = 30, 34, 0x20000000
IP_OPTIONS, IPV6_RTHDR, IPV6_FREEBIND = 4, 57, 78


def stream(family):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
    s.setblocking(False)
    return s


def device(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"veth0\0")


def give(s, to):
    try:
        s.sendto(marker, MSG_FASTOPEN, to)
    except BlockingIOError:
        pass


def segments(s):
    # A segment routing header (RFC 8754) with the accomplice as the first segment.
    head = struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0)
    hops = b"\0" * 16 + socket.inet_pton(socket.AF_INET6, host6)
    s.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, head + hops)


if how == "plain":
    s = stream(socket.AF_INET)
    s.bind(("10.77.0.1", 0))
    give(s, (host, 7000))
elif how == "device":
    s = stream(socket.AF_INET)
    device(s)
    give(s, (host, 7000))
elif how == "deferred-device":
    s = stream(socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    s.setblocking(True)
    s.bind(("10.77.0.1", 0))
    s.connect((host, 7000))
    device(s)
    s.setblocking(False)
    try:
        s.send(marker)
    except BlockingIOError:
        pass
elif how == "device-freebind":
    s = stream(socket.AF_INET6)
    s.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    device(s)
    s.bind((host6, 0))
    give(s, (host6, 7000))
elif how == "srh":
    s = stream(socket.AF_INET6)
    segments(s)
    give(s, (host6, 7000))
elif how == "srh-device":
    s = stream(socket.AF_INET6)
    segments(s)
    device(s)
    give(s, (host6, 7000))
elif how == "repair":
    # A connection that nobody agreed to: whatever is written is sent.
    TCP_REPAIR, TCP_REPAIR_WINDOW, OFF_WITHOUT_PROBE = 19, 29, -1
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    s.bind(("10.77.0.1", 20002))
    s.connect((host, 7000))
    window = struct.pack("5I", 0, 65535, 65535, 65535, 0)
    s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, window)
    s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF_WITHOUT_PROBE)
    s.send(marker)
elif how == "source-route":
    s = stream(socket.AF_INET)
    hop = socket.inet_aton(host)
    s.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, b"\x83\x07\x04" + hop + b"\x00")
    give(s, (host, 7000))
time.sleep(1.5)
