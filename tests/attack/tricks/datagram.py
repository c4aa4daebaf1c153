# Sends a marker by a transport that is not TCP.
import socket, struct, sys
marker, how = sys.argv[1].encode(), sys.argv[2]
host, host6 = "10.77.0.2", "fd00:77::2"

if how == "udp":
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(marker, (host, 9999))
elif how == "dns":
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(marker, (host, 53))
elif how == "udp-connected":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((host, 9999))
    s.send(marker)
elif how == "udplite":
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136).sendto(marker, (host, 9999))
elif how == "ping":
    head = struct.pack("!BBHHH", 8, 0, 0, 0, 1)
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).sendto(head + marker, (host, 0))
elif how == "ping6":
    head = struct.pack("!BBHHH", 128, 0, 0, 0, 1)
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, 58).sendto(head + marker, (host6, 0))
elif how == "dns-routed":
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    head = struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0)
    s.setsockopt(socket.IPPROTO_IPV6, 57, head + b"\0" * 16 + socket.inet_pton(socket.AF_INET6, host6))
    s.sendto(marker, (host6, 53))
elif how == "dns-options":
    # A destination option (PadN) between the IPv6 and the UDP header; it takes CAP_NET_RAW.
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b"\0\0\1\4\0\0\0\0")
    s.sendto(marker, (host6, 53))
elif how == "raw":
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 253).sendto(marker, (host, 0))
elif how == "raw-tcp":
    segment = struct.pack("!HHIIBBHHH", 4000, 7000, 1, 1, 5 << 4, 0x18, 1000, 0, 0) + marker
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 6).sendto(segment, (host, 0))
