# Ways off the host that no hook of Tacit sees.
import errno, fcntl, os, socket, struct, subprocess, sys, time
marker, how = sys.argv[1].encode(), sys.argv[2]


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def datagram(source, to):
    udp = struct.pack("!HHHH", 4000, 9999, 8 + len(marker), 0) + marker
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(to))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


if how == "packet":
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    s.sendto(datagram("10.77.0.1", "10.77.0.2"), ("veth0", 0x0800, 0, 0, b"\xff" * 6))
elif how == "tun":
    TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    subprocess.run("ip addr add 10.99.0.1/24 dev tun0; ip link set tun0 up", shell=True, check=True)
    os.write(tun, datagram("10.99.0.2", "10.77.0.2"))
    time.sleep(0.5)
elif how == "vsock-serve":
    s = socket.socket(socket.AF_VSOCK)
    s.bind((socket.VMADDR_CID_ANY, 7001))
    s.listen(4)
    print("ready", flush=True)
    print("got=" + s.accept()[0].recv(100).decode(), flush=True)
elif how == "vsock":
    s = socket.socket(socket.AF_VSOCK)
    try:
        s.connect((1, 7001))
    except OSError as error:
        sys.exit(print(errno.errorcode[error.errno]) or 1)
    s.sendall(marker)
