# Gives a marker to the host itself, with a segment routing header (RFC 8754) that leads onward:
# first the host's own address, then the accomplice, then the destination.
import socket, struct, sys, time
marker, how = sys.argv[1].encode(), sys.argv[2]
own, onward = "fd00:77::1", "fd00:77::2"
TCP_FASTOPEN_NO_COOKIE, MSG_FASTOPEN, IPV6_RTHDR = 34, 0x20000000, 57

s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM if how == "udp" else socket.SOCK_STREAM)
hops = [socket.inet_pton(socket.AF_INET6, hop) for hop in ("::", onward, own)]
head = struct.pack("!BBBBBBH", 0, 6, 4, 2, 2, 0, 0)
s.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, head + b"".join(hops))
if how == "udp":
    s.sendto(marker, (onward, 9999))
else:
    s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
    s.setblocking(False)
    s.bind((own, 0))
    try:
        s.sendto(marker, MSG_FASTOPEN, (onward, 7000))
    except BlockingIOError:
        pass
time.sleep(1)
